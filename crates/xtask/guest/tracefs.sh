# Runs `innkeeper why` in a guest.
mount -t proc proc /proc 2>/dev/null
mount -t sysfs sysfs /sys 2>/dev/null
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
set -e
mkdir /told

innkeeper why --again -- sh -c 'cat /no/such/file; exit 7' 2>/told/normal && exit 1 || [ $? = 7 ]
