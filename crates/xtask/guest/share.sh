# Mounts the share with $options, runs $command there and unmounts it; then the host counts what is left.
set -e
mkdir /share
mount -t virtiofs -o "$options" share /share
grep ' /share virtiofs ' /proc/mounts
cd /share
sh -c "$command"
cd /
umount /share
echo "innkeeper-guest: unmounted"
until [ -e /counted ]; do sleep 0.1; done
