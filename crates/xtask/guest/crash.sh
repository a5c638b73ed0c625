# Writes until the host ends the machine.
echo "innkeeper-guest: ready"
while :; do
    dd if=/dev/zero of=/endless bs=64k count=64 2> /dev/null
    rm /endless
done
