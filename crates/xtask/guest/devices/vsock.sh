# Programs of guest and host reach each other, in streams and messages, and all bytes come back (VIRTIO 1.2 5.10). vsock.host is the host's
# half. $1 is the format of the ring, of which feature bit 34 tells.
# boot options: --vsock v
set -e
. /features.sh
stream=$(exercise echo vsock:2:5000 --length 16MiB)
messages=$(exercise echo vsock:2:5001 --messages --length 4MiB)
if exercise echo vsock:2:5002 2>/refused; then
    echo "a port without a listener was connected"
    exit 1
fi
# CID 4294967295 is any. The host connects as soon as it can.
exercise reflect vsock:4294967295:7000 > /reflected
bits=$(features 0x0013 "$1") || { echo "$bits"; exit 1; }
echo "stream $stream, messages $messages, host $(tail -n 1 /reflected), $bits"
