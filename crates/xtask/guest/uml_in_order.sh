# Many requests at a time, quick ones behind slow ones: reads that the host has to fetch from its disk, and files that come and go.
mkdir /tmp/share && mount -t virtiofs share /tmp/share && cd /tmp/share || exit 1
for file in $files; do
    (md5sum "$file" > "sum-$file") &
    (dd if="$file" bs=64k iflag=direct 2> /dev/null | md5sum > "direct-$file") &
    (for round in $(seq 50); do
        echo "$round" > "new-$file" && mv "new-$file" "moved-$file" && rm "moved-$file" || touch /failed
    done) &
done
wait
for file in $files; do echo "sum $file $(cut -d ' ' -f 1 "sum-$file") $(cut -d ' ' -f 1 "direct-$file")"; done
# The host looks at its threads while the share is mounted.
echo "innkeeper-guest: read"
until [ -e /counted ]; do sleep 0.1; done
cd / && umount /tmp/share && [ ! -e /failed ]
