use super::evaluator::{Data, evaluate};
use super::*;
use crate::Argument;
use crate::declaration::{Calls, Ioctl};
use crate::permit::{Occasion, Permit};
use crate::system_calls::{self as call, SystemCall};

const ARCHITECTURES: [Architecture; 2] = [Architecture::X86_64, Architecture::Aarch64];
const PROCESS: u32 = 4711;

const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

const FS_IOC_GETFLAGS: u32 = 0x8008_6601;

/// Types a character for another process. The C libraries disagree about the type of such numbers.
const TIOCSTI: u64 = 0x5412;

const LANE: &[Permit] = &[
    call::PREADV2.any(),
    call::OPENAT2.any(),
    call::FCNTL.when(&[&[Argument::is(1, 3)], &[Argument::is(1, 4), Argument::only(2, 0o6000)]]),
    call::SETRESUID.when(&[&[Argument::is(0, u32::MAX), Argument::is(2, u32::MAX)]]),
    call::UNSHARE.when(&[&[Argument::is(0, libc::CLONE_FS as u32)]]),
    call::SOCKET.when(&[&[Argument::is(0, libc::AF_UNIX as u32)]]),
];

fn declaration() -> Declaration {
    Declaration {
        device: "test",
        shared: None,
        network: false,
        capabilities: Vec::new(),
        calls: vec![Calls {
            roles: &[Role::Lane],
            why: "requests",
            permits: LANE,
        }],
        ioctls: vec![Ioctl {
            name: "FS_IOC_GETFLAGS",
            number: FS_IOC_GETFLAGS,
            roles: &[Role::Helper],
            why: "lsattr",
            occasion: Occasion::Usual,
        }],
    }
}

fn program(role: Role, action: Action, architecture: Architecture) -> BpfProgram {
    let action = action.of_the_kernel().unwrap();
    compile(&declaration().rules(role), &action, architecture, PROCESS).unwrap()
}

/// What the filter of `role` answers, on every architecture that has the call.
fn answers(role: Role, of: SystemCall, arguments: &[u64]) -> Vec<u32> {
    let having = ARCHITECTURES
        .into_iter()
        .filter_map(|architecture| Some((architecture, of.number(architecture)?)));
    let answer = |(architecture, number)| {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        let data = Data {
            number,
            architecture: audit(architecture),
            arguments: all,
        };
        evaluate(&program(role, Action::Kill, architecture), &data)
    };
    having.map(answer).collect()
}

fn is(role: Role, of: SystemCall, arguments: &[u64], expected: u32) {
    for answer in answers(role, of, arguments) {
        assert_eq!(answer, expected, "{} of {role:?} with {arguments:x?}", of.name());
    }
}

fn allowed(of: SystemCall, arguments: &[u64]) {
    is(Role::Lane, of, arguments, ALLOW);
}

fn killed(of: SystemCall, arguments: &[u64]) {
    is(Role::Lane, of, arguments, KILL);
}

/// Bits that the kernel ignores in an argument of 32 bits.
const HIGH: u64 = 0xdead_beef << 32;

#[test]
fn what_is_not_declared_is_killed() {
    for of in [
        call::EXECVE,
        call::EXECVEAT,
        call::OPEN_BY_HANDLE_AT,
        call::MOUNT,
        call::MOVE_MOUNT,
        call::FINIT_MODULE,
        call::INIT_MODULE,
        call::PTRACE,
        call::PROCESS_VM_WRITEV,
        call::SETNS,
        call::BPF,
        call::KILL,
        call::PIDFD_SEND_SIGNAL,
        call::CONNECT,
        call::FORK,
        call::VFORK,
        call::IO_URING_SETUP,
        call::KEXEC_LOAD,
        call::PIVOT_ROOT,
        call::CHROOT,
    ] {
        killed(of, &[]);
    }
    allowed(call::PREADV2, &[1, 2, 3]);
}

/// What `innkeeper check` compares the calls of a daemon with is what the filter lets through.
#[test]
fn the_list_for_people_allows_what_the_filter_of_all_threads_allows() {
    let declaration = declaration();
    let list = declaration.allowed();
    let action = Action::Kill.of_the_kernel().unwrap();
    let values = [
        0,
        1,
        2,
        3,
        4,
        0o2000,
        u64::from(PROCESS),
        u64::from(FS_IOC_GETFLAGS),
        u64::from(u32::MAX),
        libc::CLONE_FS as u64,
        (libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64,
        libc::MAP_ANONYMOUS as u64,
        HIGH,
    ];
    for architecture in ARCHITECTURES {
        let program = compile(&declaration.all_rules(), &action, architecture, PROCESS).unwrap();
        for &of in call::ALL {
            let Some(number) = of.number(architecture) else {
                continue;
            };
            if ANSWERED.iter().any(|(answered, _)| *answered == of) {
                continue;
            }
            for (first, second) in values.iter().flat_map(|first| values.map(|second| (*first, second))) {
                let arguments = [first, second, 4, second, first, 0];
                let data = Data {
                    number,
                    architecture: audit(architecture),
                    arguments,
                };
                let listed = list.iter().any(|allowed| allowed.includes(of, &arguments, PROCESS));
                let passes = evaluate(&program, &data) == ALLOW;
                assert_eq!(listed, passes, "{} {arguments:x?}", of.name());
            }
        }
    }
}

#[test]
fn every_number_without_a_rule_is_killed() {
    for architecture in ARCHITECTURES {
        let program = program(Role::Lane, Action::Kill, architecture);
        let rules = declaration().rules(Role::Lane);
        for number in 0..600 {
            let known = SystemCall::of_number(number, architecture);
            let answered = known.is_some_and(|known| ANSWERED.iter().any(|(call, _)| *call == known));
            if answered || known.is_some_and(|known| rules.contains_key(&known)) {
                continue;
            }
            let data = Data {
                number,
                architecture: audit(architecture),
                arguments: [0; 6],
            };
            assert_eq!(evaluate(&program, &data), KILL, "{architecture:?} {number}");
        }
    }
}

#[test]
fn calls_of_another_architecture_and_of_x32_are_killed_even_where_others_are_logged() {
    const I386: u32 = 0x4000_0003;
    const ARM: u32 = 0x4000_0028;
    for native in ARCHITECTURES {
        for action in [Action::Kill, Action::Trap, Action::Log] {
            let program = program(Role::Lane, action, native);
            let answer = |number, architecture| {
                let arguments = [0; 6];
                evaluate(
                    &program,
                    &Data {
                        number,
                        architecture,
                        arguments,
                    },
                )
            };
            let others = ARCHITECTURES.into_iter().filter(|&other| other != native).map(audit);
            for other in others.chain([I386, ARM]) {
                for number in 0..600 {
                    assert_eq!(answer(number, other), KILL, "{number} of {other:#x}");
                }
            }
            for number in 0..600 {
                assert_eq!(answer(X32 | number, audit(native)), KILL, "x32 {number}");
            }
            assert_eq!(answer(u32::MAX, audit(native)), KILL);
        }
    }
}

#[test]
fn the_action_is_what_was_asked_for() {
    for architecture in ARCHITECTURES {
        for (action, expected) in [
            (Action::Kill, libc::SECCOMP_RET_KILL_PROCESS),
            (Action::Trap, libc::SECCOMP_RET_TRAP),
            (Action::Log, libc::SECCOMP_RET_LOG),
        ] {
            let data = Data {
                number: call::EXECVE.number(architecture).unwrap(),
                architecture: audit(architecture),
                arguments: [0; 6],
            };
            assert_eq!(evaluate(&program(Role::Lane, action, architecture), &data), expected);
        }
    }
}

#[test]
fn the_c_library_is_led_from_clone3_to_clone() {
    let errno = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    for role in Role::ALL {
        is(role, call::CLONE3, &[], errno(libc::ENOSYS));
        is(
            role,
            call::TKILL,
            &[PROCESS.into(), libc::SIGKILL as u64],
            errno(libc::EPERM),
        );
    }
}

#[test]
fn clone_makes_threads_and_nothing_else() {
    let thread = (libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID) as u64;
    let musl = thread | libc::CLONE_DETACHED as u64;
    allowed(call::CLONE, &[thread]);
    allowed(call::CLONE, &[musl]);
    killed(call::CLONE, &[libc::SIGCHLD as u64]);
    killed(
        call::CLONE,
        &[(libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64],
    );
    killed(call::CLONE, &[thread & !(libc::CLONE_THREAD as u64)]);
    for namespace in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ] {
        killed(call::CLONE, &[thread | namespace as u64]);
    }
    is(Role::Helper, call::CLONE, &[thread], KILL);
}

#[test]
fn no_memory_becomes_executable() {
    let prot = |prot: i32| prot as u64;
    let (anonymous, shared) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::MAP_SHARED);
    let readable = prot(libc::PROT_READ | libc::PROT_WRITE);
    allowed(call::MMAP, &[0, 4096, readable, anonymous as u64]);
    killed(call::MMAP, &[0, 4096, readable, shared as u64]);
    allowed(call::MPROTECT, &[0, 4096, readable]);
    for high in [0, HIGH] {
        let executable = readable | prot(libc::PROT_EXEC) | high;
        killed(call::MMAP, &[0, 4096, executable, anonymous as u64]);
        killed(call::MPROTECT, &[0, 4096, executable]);
    }
    killed(call::PKEY_MPROTECT, &[0, 4096, readable]);
}

#[test]
fn prctl_names_a_thread_and_binds_it() {
    for option in [libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS] {
        allowed(call::PRCTL, &[option as u64]);
        allowed(call::PRCTL, &[option as u64 | HIGH]);
    }
    for option in [
        libc::PR_SET_DUMPABLE,
        libc::PR_CAPBSET_DROP,
        libc::PR_SET_MM,
        libc::PR_SET_SECCOMP,
    ] {
        killed(call::PRCTL, &[option as u64]);
    }
    is(Role::Signals, call::PRCTL, &[libc::PR_SET_NAME as u64], KILL);
}

#[test]
fn a_thread_adds_a_filter_for_itself_alone() {
    let set: u64 = libc::SECCOMP_SET_MODE_FILTER.into();
    allowed(call::SECCOMP, &[set, 0]);
    killed(call::SECCOMP, &[set, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER]);
    killed(call::SECCOMP, &[set, libc::SECCOMP_FILTER_FLAG_TSYNC]);
    killed(call::SECCOMP, &[0, 0]);
}

#[test]
fn a_signal_goes_to_this_process_and_ends_it() {
    let abort = libc::SIGABRT as u64;
    allowed(call::TGKILL, &[PROCESS.into(), 1, abort]);
    killed(call::TGKILL, &[1, 1, abort]);
    killed(call::TGKILL, &[PROCESS.into(), 1, libc::SIGKILL as u64]);
}

#[test]
fn arguments_of_32_bits_are_read_as_the_kernel_reads_them() {
    for high in [0, HIGH] {
        allowed(call::FCNTL, &[5, 3 | high]);
        allowed(call::SETRESUID, &[u64::from(u32::MAX) | high, 1000, u64::MAX]);
        allowed(call::UNSHARE, &[libc::CLONE_FS as u64 | high]);
        allowed(call::SOCKET, &[libc::AF_UNIX as u64 | high]);
        allowed(call::IOCTL, &[5, u64::from(FS_IOC_GETFLAGS) | high]);
        killed(call::FCNTL, &[5, 5 | high]);
        killed(call::UNSHARE, &[libc::CLONE_NEWUSER as u64 | high]);
        killed(call::SOCKET, &[libc::AF_INET as u64 | high]);
        killed(call::SETRESUID, &[high, 0, 0]);
        killed(call::IOCTL, &[5, TIOCSTI | high]);
    }
}

#[test]
fn a_list_passes_with_all_its_checks_and_one_list_is_enough() {
    allowed(call::FCNTL, &[5, 4, 0o4000]);
    killed(call::FCNTL, &[5, 4, 0o4001]);
    allowed(call::FCNTL, &[5, 4, 0o4000 | HIGH]);
    killed(call::SETRESUID, &[u64::MAX, 0, 0]);
}

#[test]
fn standard_error_can_be_written_by_all() {
    for role in Role::ALL {
        for of in [call::WRITE, call::WRITEV] {
            is(role, of, &[2], ALLOW);
            is(role, of, &[5], KILL);
        }
    }
}

#[test]
fn a_filter_has_room_to_grow() {
    let all: Rules = call::ALL.iter().map(|&call| (call, Rule::Always)).collect();
    let kill = SeccompAction::KillProcess;
    for architecture in ARCHITECTURES {
        let program = compile(&all, &kill, architecture, PROCESS).unwrap();
        assert!(program.len() < 4096, "{} instructions", program.len());
    }
}
