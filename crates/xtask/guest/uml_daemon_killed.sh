# Has a share, and writes to it if $writes, until its daemon is gone. The root has a daemon of its own, which stays.
mkdir /tmp/share && mount -t virtiofs share /tmp/share || exit 1
echo "before" > /tmp/share/before
if [ -n "$writes" ]; then
    while dd if=/dev/zero of=/tmp/share/endless bs=64k count=64 2> /dev/null; do :; done &
fi
echo "innkeeper-guest: ready"
while [ -e /sys/bus/virtio/devices/virtio1 ]; do sleep 0.1; done
echo "the root works" > /root-works
echo "innkeeper-guest: goes on"
# Linux never gives up a request that a daemon took with it, and the calls behind it wait too.
if [ -n "$writes" ]; then exec sleep 1000; fi
cat /tmp/share/before && echo "no error"
echo "after" > /tmp/share/after && echo "no error"
ls /tmp/share || echo "ls failed"
umount /tmp/share && echo "unmounted"
