# Reads the file piece by piece and tells the size of the page cache after each; the host notes its own and says go on.
set -e
mkdir /share
mount -t virtiofs -o "$options" share /share
cached() { sed -n 's/^Cached: *\([0-9]*\) kB$/\1/p' /proc/meminfo; }
# Open all the time: the page cache of a file may go when the file is opened again.
exec 3< /share/file
read_piece() { dd of=/dev/null bs=1M count="$step" <&3 2> /dev/null; }
# What reads and counts is in the page cache before.
dd if=/job of=/dev/null bs=1M count=1 2> /dev/null
sleep 0.1
done=0
echo "innkeeper-guest: read 0 cached $(cached)"
while [ "$done" -lt "$size" ]; do
    until [ -e "/noted-$done" ]; do sleep 0.1; done
    read_piece
    done=$((done + step))
    echo "innkeeper-guest: read $done cached $(cached)"
done
exec 3<&-
umount /share
