# boot options: --disk {disk} --cpus 2
# The kernel uses the disk: sizes, bytes, flushes, holes and a file system (VIRTIO 1.1 5.2). $1 is the format of the ring, of which feature
# bit 34 tells.
set -e
. /features.sh
disk=/dev/vda
fail() {
    echo "$*"
    exit 1
}
has() {
    command -v "$1" >/dev/null 2>&1
}
[ -b $disk ] || mknod $disk b $(sed 's/:/ /' /sys/block/vda/dev)
sectors=$(cat /sys/block/vda/size)
[ "$sectors" = 131072 ] || fail "the disk has $sectors sectors of 131072"
if has blockdev; then
    bytes=$(blockdev --getsize64 $disk)
    [ "$bytes" = 67108864 ] || fail "blockdev: $bytes bytes"
fi
cache=$(cat /sys/block/vda/cache_type)
[ "$cache" = "write back" ] || fail "the cache is '$cache'"
queues=$(ls /sys/block/vda/mq | wc -l)
[ "$queues" = 1 ] || fail "$queues queues"

# Bytes come back, with both kinds of cache, after the guest's own cache is dropped.
for cache in "write through" "write back"; do
    echo "$cache" >/sys/block/vda/cache_type
    [ "$(cat /sys/block/vda/cache_type)" = "$cache" ] || fail "the cache does not become '$cache'"
    dd if=/dev/urandom of=/tmp/bytes bs=1M count=8 2>/dev/null
    dd if=/tmp/bytes of=$disk bs=1M seek=16 conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    written=$(md5sum </tmp/bytes)
    read=$(dd if=$disk bs=1M skip=16 count=8 2>/dev/null | md5sum)
    [ "$written" = "$read" ] || fail "other bytes were read than written ($cache)"
done

# Discarded sectors read as zeros: the image is a file.
discarded="no blkdiscard"
if has blkdiscard; then
    blkdiscard -o 16777216 -l 8388608 $disk
    echo 3 >/proc/sys/vm/drop_caches
    zeros=$(dd if=/dev/zero bs=1M count=8 2>/dev/null | md5sum)
    read=$(dd if=$disk bs=1M skip=16 count=8 2>/dev/null | md5sum)
    [ "$zeros" = "$read" ] || fail "discarded sectors are not zeros"
    discarded="8 MiB discarded"
fi

# A file system outlasts its mount.
mounted="no file system"
make=
for program in mkfs.ext4 mkfs.ext2 mke2fs; do
    if has $program; then
        make=$program
        break
    fi
done
type=
for name in ext4 ext2; do
    if grep -qw $name /proc/filesystems || modprobe $name 2>/dev/null; then
        type=$name
        break
    fi
done
if [ -n "$make" ] && [ -n "$type" ]; then
    $make $disk >/dev/null 2>&1
    mkdir -p /tmp/disk
    mount -t $type $disk /tmp/disk
    cp /tmp/bytes /tmp/disk/bytes
    umount /tmp/disk
    mount -t $type $disk /tmp/disk
    [ "$(md5sum </tmp/disk/bytes)" = "$written" ] || fail "the file has other bytes"
    rm /tmp/disk/bytes
    if has fstrim; then
        fstrim /tmp/disk || fail "fstrim failed"
    fi
    umount /tmp/disk
    mounted="$type by $make"
fi

bits=$(features 0x0002 "$1") || { echo "$bits"; exit 1; }
echo "$sectors sectors, 2 x 8 MiB written and read, $discarded, $mounted, $bits"
