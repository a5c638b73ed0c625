# The POSIX suite: on the root, which is our share, or where $options say how to mount it, on a share of its own.
mkdir /suite || exit 1
if [ -n "$options" ]; then
    mount -t virtiofs -o "$options" suite /suite || exit 1
    dmesg | grep 'Cache len'
    grep ' /suite virtiofs ' /proc/mounts
fi
chmod 777 /suite && cd /suite || exit 1
# It leaves NO_COLOR to the terminal's library: the summary is read by a program.
NO_COLOR=1 pjdfstest --configuration-file /etc/pjdfstest.toml --path /suite
status=$?
cd /
if [ -n "$options" ]; then umount /suite || exit 1; fi
exit $status
