# Reads one file over a plain mount and over two mounts with DAX, and tells how the page cache grew.
set -e
cached() { sed -n 's/^Cached: *\([0-9]*\) kB$/\1/p' /proc/meminfo; }
dmesg | grep 'Cache len'
for share in plain always inode; do
    options=rw
    [ "$share" = plain ] || options=dax=$share
    mkdir "/mnt-$share"
    mount -t virtiofs -o "$options" "$share" "/mnt-$share"
    grep " /mnt-$share virtiofs " /proc/mounts
    # What reads and counts is in the page cache before.
    md5sum < /job > /dev/null
    before=$(cached)
    sum=$(md5sum < "/mnt-$share/file")
    echo "$share grew $(($(cached) - before))"
    echo "$share sum ${sum%% *}"
    umount "/mnt-$share"
done
