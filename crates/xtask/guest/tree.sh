# Copies every byte of the source share into the guest, and out of it again to the target share.
set -e
mkdir /tmp/source /tmp/target
mount -t virtiofs -o ro source /tmp/source
mount -t virtiofs target /tmp/target
cp --archive --sparse=always /tmp/source/. /tmp/target
umount /tmp/target /tmp/source
