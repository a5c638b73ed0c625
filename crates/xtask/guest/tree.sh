# Copies every byte of the source share into the guest, and out of it again to the target share. Both are mounted with
# $options, if there are any.
set -e
mkdir /tmp/source /tmp/target
mount -t virtiofs -o "ro${options:+,$options}" source /tmp/source
mount -t virtiofs -o "rw${options:+,$options}" target /tmp/target
# GNU cp, by its path: the shell has a cp of its own, which keeps neither holes nor extended attributes.
/bin/cp --archive --sparse=always /tmp/source/. /tmp/target
umount /tmp/target /tmp/source
