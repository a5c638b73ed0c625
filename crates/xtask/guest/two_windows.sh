# Reads two files side by side, each through the window of another share.
set -e
mkdir /first /second
mount -t virtiofs -o dax=always first /first
mount -t virtiofs -o dax=always second /second
cmp /first/file /second/file
umount /first /second
