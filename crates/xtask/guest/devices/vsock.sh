# Programs of guest and host reach each other, in streams and messages, and all bytes come back (VIRTIO 1.2 5.10). vsock.host is the host's
# half. $1 is the format of the ring, of which feature bit 34 tells.
# boot options: --vsock v
set -e
stream=$(exercise echo vsock:2:5000 --length 16MiB)
messages=$(exercise echo vsock:2:5001 --messages --length 4MiB)
if exercise echo vsock:2:5002 2>/refused; then
    echo "a port without a listener was connected"
    exit 1
fi
# CID 4294967295 is any. The host connects as soon as it can.
exercise reflect vsock:4294967295:7000 > /reflected
bits=
for device in /sys/bus/virtio/devices/*; do
    [ "$(cat "$device/device")" = 0x0013 ] || continue
    features=$(cat "$device/features")
    bit=0
    while [ -n "$features" ]; do
        case $features in 1*) bits="$bits $bit" ;; esac
        features=${features#?}
        bit=$((bit + 1))
    done
done
case "$1/$bits " in
split/*" 34 "*) echo "the ring is packed"; exit 1 ;;
packed/*" 34 "*) ;;
packed/*) echo "the ring is split"; exit 1 ;;
esac
echo "stream $stream, messages $messages, host $(tail -n 1 /reflected), feature bits$bits"
