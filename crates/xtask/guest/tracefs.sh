# Runs `innkeeper why` in a guest, ends it in every way, and writes down what tracefs says before and after each.
mount -t proc proc /proc 2>/dev/null
mount -t sysfs sysfs /sys 2>/dev/null
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
set -e
mkdir /told /tmp/run
mount -t tmpfs none /tmp/run
cd /sys/kernel/tracing

# Every file of tracefs that says how it is set, and what it says. Left out are
# - those that take out what they show, or wait for it: trace_pipe, trace_pipe_raw, snapshot_raw
# - those that count what is traced, or remember it with no way to forget: stats, hist, touched_functions,
#   saved_cmdlines, trace_stat, tracing_max_latency
# - those that describe the kernel, whose modules come and go: format, id, available_*, dyn_ftrace_total_info, printk_formats,
#   eval_map, README, header_*
settings() {
    find . -type f -perm -400 \
        ! -name trace_pipe ! -name trace_pipe_raw ! -name snapshot_raw \
        ! -name stats ! -name hist ! -name hist_debug ! -name touched_functions ! -name 'saved_*' ! -path './trace_stat/*' \
        ! -name tracing_max_latency \
        ! -name format ! -name id ! -name 'available_*' ! -name dyn_ftrace_total_info ! -name printk_formats \
        ! -name eval_map ! -name README ! -name 'header_*' >/tmp/run/files
    # Files that say nothing are there all the same.
    sort /tmp/run/files >/told/"$1"
    find ./instances -type d | sort >>/told/"$1"
    xargs grep -H '' </tmp/run/files | sort >>/told/"$1"
}

# The processes with this word in their command line.
with() { grep -lz -e "^$1\$" /proc/[0-9]*/cmdline 2>/dev/null | cut -d / -f 3; }

# Runs a command that goes on until it is ended, in a process group of its own; the words are run meanwhile and end it.
endless() {
    rm -f /tmp/run/pid
    "$@" &
    setsid innkeeper why -- sh -c 'echo $PPID >/tmp/run/pid; exec sleep 1000' 2>>/told/errors || true
    wait $!
    while [ -n "$(with --guardian)" ]; do sleep 0.1; done
}

# Waits for that command, and sets `why` and `guardian` to who runs it.
running() {
    until [ -s /tmp/run/pid ]; do sleep 0.1; done
    why=$(cat /tmp/run/pid)
    guardian=$(with --guardian)
    # It is traced, or there is nothing to put back.
    cat current_tracer instances/why_*/current_tracer 2>/dev/null | grep -q function_graph
}

# As Ctrl-C does: the whole group.
interrupted() { running && kill -INT -"$why"; }
killed() { running && kill -KILL "$why" && kill $(with 1000); }
all_killed() { running && kill -KILL $guardian "$why" && kill $(with 1000); }

# Kills it after a while: it may be at any of its steps.
killed_at_some_step() {
    sleep "$1"
    kill -KILL $(with --) || true
    sleep 0.2
    kill $(with 1000) 2>/dev/null || true
}

settings never-used
innkeeper why --again -- sh -c 'cat /no/such/file; exit 7' 2>/told/said && exit 1 || [ $? = 7 ]
settings first

# What a user has set is kept as well.
echo 2048 >buffer_size_kb
echo uptime >trace_clock
echo 1 >options/event-fork
echo 'p:mine/open do_sys_openat2' >dynamic_events
settings before
innkeeper why -- cat /no/such/file 2>/told/again || true
settings after-normal
innkeeper why -- /no/such/program 2>>/told/errors && exit 1 || [ $? = 127 ]
settings after-no-command
endless interrupted
settings after-interrupt
endless killed
settings after-kill
# Which steps, the test says.
for seconds in $STEPS; do
    endless killed_at_some_step $seconds
    settings after-kill-$seconds
done
endless all_killed
settings left-behind
innkeeper why -- cat /no/such/file 2>/told/healed || true
settings after-healing
