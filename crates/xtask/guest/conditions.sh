# Runs `innkeeper why` in a guest under conditions that take something away from it.
mount -t proc proc /proc 2>/dev/null
mount -t sysfs sysfs /sys 2>/dev/null
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
mount -t tmpfs none /tmp
mount -t securityfs none /sys/kernel/security
chmod 755 /
set -e
mkdir /told
tracing=/sys/kernel/tracing

# A command that fails in one call that is worth telling, and ends with 7.
cat >/tmp/fails <<'END'
cat /no/such/file 2>/dev/null
exit 7
END

# What is told under this condition, how it ended, and what the doctor says. The words after are run before.
under() {
    name=$1
    shift
    status=0
    "$@" innkeeper why -- sh /tmp/fails 2>/told/"$name" || status=$?
    echo "status $status" >>/told/"$name"
    status=0
    "$@" innkeeper why --doctor >/told/doctor-"$name" || status=$?
    echo "status $status" >>/told/doctor-"$name"
}

under nothing
echo vfs_statfs >$tracing/set_ftrace_filter
echo function >$tracing/current_tracer
under function-tracer
cat $tracing/current_tracer >>/told/function-tracer
echo function_graph >$tracing/current_tracer
under graph-tracer
cat $tracing/current_tracer >>/told/graph-tracer
echo nop >$tracing/current_tracer
echo >$tracing/set_ftrace_filter
echo kept >$tracing/trace_marker
under trace-kept
cat $tracing/trace >>/told/trace-kept
echo >$tracing/trace

as_nobody() { su -s /bin/sh nobody -c "$*"; }
under no-root as_nobody
# A root whose number outside is another.
under user-namespace as_nobody unshare -U -r
cat >/tmp/in-namespace <<'END'
mount -t proc proc /proc
exec "$@"
END
under pid-namespace unshare -m -p -f sh /tmp/in-namespace

echo 2 >/proc/sys/kernel/kptr_restrict
under no-symbols
echo 1 >/proc/sys/kernel/kptr_restrict

: >/tmp/empty
mount -o bind /tmp/empty /sys/kernel/btf/vmlinux
under no-types
umount /sys/kernel/btf/vmlinux

umount $tracing
under no-tracefs
grep tracefs /proc/mounts >>/told/no-tracefs || true
under no-tracefs-and-no-right as_nobody unshare -U -r
mount -t tracefs tracefs $tracing

# There is no way back from this one.
echo confidentiality >/sys/kernel/security/lockdown
under lockdown
