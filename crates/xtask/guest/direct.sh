# Direct I/O between a file that is not mapped and a mapping of another, of the same share and of another share.
set -e
mkdir /window /plain
mount -t virtiofs -o dax=inode window /window
mount -t virtiofs plain /plain
echo "between shares: $(exercise direct /plain/file /window/between)"
echo "within a share: $(exercise direct /window/file /window/within)"
umount /window /plain
