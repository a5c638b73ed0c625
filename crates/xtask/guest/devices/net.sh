# The guest reaches the host's end of its tap interface, with frames of all sizes, and fetches a file unharmed (VIRTIO 1.1 5.1). $1 is the
# format of the ring, of which feature bit 34 tells.
# boot options: --net tap:guest0
set -e
host=10.9.8.1
ip link set eth0 up
ip addr add 10.9.8.2/24 dev eth0
[ "$(cat /sys/class/net/eth0/carrier)" = 1 ] || { echo "the link is down"; exit 1; }
for size in 0 56 1472 1473 30000; do
    ping -c 2 -W 20 -s $size $host > /ping || { cat /ping; echo "no answer to a ping of $size bytes"; exit 1; }
done
wget -q -O /file http://$host/file
sum=$(md5sum < /file)
wanted=$(wget -q -O - http://$host/sum)
[ "$sum" = "$wanted" ] || { echo "the file has $sum instead of $wanted"; exit 1; }
bits=
for device in /sys/bus/virtio/devices/*; do
    [ "$(cat "$device/device")" = 0x0001 ] || continue
    features=$(cat "$device/features")
    bit=0
    while [ -n "$features" ]; do
        case $features in 1*) bits="$bits $bit" ;; esac
        features=${features#?}
        bit=$((bit + 1))
    done
done
case "$1/$bits " in
split/*" 34 "*) echo "the ring is packed"; exit 1 ;;
packed/*" 34 "*) ;;
packed/*) echo "the ring is split"; exit 1 ;;
esac
echo "mtu $(cat /sys/class/net/eth0/mtu), pings of 0 to 30000 bytes, 16 MiB by HTTP, feature bits$bits"
