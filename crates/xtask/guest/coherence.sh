# Stores through a mapping, and waits for what others store: the host, and the other of two guests ($self says which).
set -e
mkdir /share
mount -t virtiofs -o dax=always share /share
until_told() { until [ -e "/$1" ]; do sleep 0.1; done; }
# The mapping stays until the host has looked.
store() { until_told looked | exercise store /share/file "$1" "$2"; }
await() { exercise await /share/file "$1" "$2" --limit 300; }
if [ "$self" = first ]; then
    await 100 "the host's words"
    until_told go
    store 4096 "the first guest's words"
    await 2MiB "the second guest's words"
else
    await 4096 "the first guest's words"
    until_told go
    store 2MiB "the second guest's words"
fi
umount /share
