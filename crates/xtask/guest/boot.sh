# Tells what the driver negotiated, then uses every request queue.
set -e
for device in /sys/bus/virtio/devices/*; do
    if [ "$(cat "$device/device")" = 0x001a ]; then echo "features $(cat "$device/features")"; fi
done
echo "root $(grep ' / virtiofs ' /proc/mounts)"
echo "host said $(cat /from-host)"
echo "guest says this" > /from-guest

# The driver gives each processor a queue.
processor=0
while [ "$processor" -lt "$(nproc)" ]; do
    taskset "$(printf '%x' $((1 << processor)))" sh -c '
        for file in 0 1 2 3 4 5 6 7 8 9; do
            echo "$1 $file" > "/queue-$1-$file" && mv "/queue-$1-$file" "/moved-$1-$file" && cat "/moved-$1-$file"
        done > /dev/null' sh "$processor" &
    processor=$((processor + 1))
done
wait
# The host counts how its lanes worked while the rings still run.
echo "innkeeper-guest: used"
until [ -e /counted ]; do sleep 1; done
