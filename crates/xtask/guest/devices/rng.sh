# The kernel takes entropy from the device, and /dev/hwrng gives bytes that are not the same twice (VIRTIO 1.1 5.4). $1 is the format
# of the ring, of which feature bit 34 tells.
set -e
. /features.sh
current=$(cat /sys/class/misc/hw_random/rng_current)
case $current in
virtio_rng.*) ;;
*) echo "rng_current is $current"; exit 1 ;;
esac
read_some() {
    dd if=/dev/hwrng bs=4096 count=16 iflag=fullblock 2>/dev/null
}
bytes=$(read_some | wc -c)
one=$(read_some | md5sum)
other=$(read_some | md5sum)
[ "$bytes" = 65536 ] || { echo "/dev/hwrng gave $bytes bytes of 65536"; exit 1; }
[ "$one" != "$other" ] || { echo "the same bytes came twice"; exit 1; }
bits=$(features 0x0004 "$1") || { echo "$bits"; exit 1; }
echo "$current, 3 x 64 KiB of /dev/hwrng, $bits"
