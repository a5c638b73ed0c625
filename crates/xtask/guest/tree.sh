# Copies every byte of the source share into the guest, and out of it again to the target share. Both are mounted with
# $options, if there are any.
set -e
mkdir /tmp/source /tmp/target
mount -t virtiofs -o "ro${options:+,$options}" source /tmp/source
mount -t virtiofs -o "rw${options:+,$options}" target /tmp/target
# GNU cp, by its path: the shell has a cp of its own, which keeps neither holes nor extended attributes.
/bin/cp --archive --sparse=always /tmp/source/. /tmp/target
if [ -n "$options" ]; then
    # One window at work, since a mount that says nothing of DAX lets the daemon choose (dax=inode).
    # A file that is being written past its end is not mapped: the next mount is the first that can map what was copied.
    umount /tmp/target /tmp/source
    mount -t virtiofs -o ro,dax=never source /tmp/source
    mount -t virtiofs -o "rw,$options" target /tmp/target
    for file in large/edge-6 holes/between; do cmp "/tmp/source/$file" "/tmp/target/$file"; done
fi
umount /tmp/target /tmp/source
