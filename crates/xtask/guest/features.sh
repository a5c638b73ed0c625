# For the scripts of devices: `features ID FORMAT` prints the feature bits that the kernel and the devices of this VIRTIO id agreed on, and
# fails if bit 34 does not fit FORMAT, which is `split` or `packed`.
features() {
    bits=
    for device in /sys/bus/virtio/devices/*; do
        [ "$(cat "$device/device")" = "$1" ] || continue
        features=$(cat "$device/features")
        bit=0
        while [ -n "$features" ]; do
            case $features in 1*) bits="$bits $bit" ;; esac
            features=${features#?}
            bit=$((bit + 1))
        done
    done
    case "$2/$bits " in
    split/*" 34 "*) echo "the ring is packed"; return 1 ;;
    packed/*" 34 "*) ;;
    packed/*) echo "the ring is split"; return 1 ;;
    esac
    echo "feature bits$bits"
}
