# Mounts the share so many times as $mounts says, each time for a file of its own.
set -e
mkdir /tmp/share
for mount in $(seq "$mounts"); do
    mount -t virtiofs share /tmp/share
    echo "mount $mount" > "/tmp/share/file-$mount"
    [ "$(cat /tmp/share/file-1)" = "mount 1" ]
    umount /tmp/share
done
