//! The one command of `boot ... -- COMMAND`: started, connected to the host through the channel, awaited.
#![expect(
    unsafe_code,
    reason = "a session of its own and a controlling terminal can be had only between fork and exec"
)]

use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, WaitOptions, wait};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::channel::{Frame, PAYLOAD_BYTES, PORT};
use super::plan::Plan;
use super::root::PATIENCE;

/// What a shell of a fresh system would have.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A pipe or terminal that background processes still hold when the command ends is read at most this often more.
const LAST_READS: usize = 32;

/// Opens the channel to the host.
pub(super) fn open_port() -> Result<File, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(path) = port_path() {
            return File::options()
                .read(true)
                .write(true)
                .open(&path)
                .map_err(|error| format!("opening {path:?}: {error}"));
        }
        if Instant::now() > deadline {
            return Err(format!(
                "no virtio-serial port {PORT} has appeared; the kernel may lack virtio_console"
            ));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn port_path() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?.filter_map(Result::ok);
    let ours = ports
        .into_iter()
        .find(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim_end() == PORT))?;
    Some(PathBuf::from("/dev").join(ours.file_name())).filter(|path| path.exists())
}

/// Runs the command to its end and tells the host how it ended.
pub(super) fn run(plan: &Plan, mut port: File) -> Result<(), String> {
    let from_host = Patient(
        port.try_clone()
            .map_err(|error| format!("using the channel: {error}"))?,
    );
    let code = match start(plan, from_host) {
        Ok(running) => relay(running, &mut port).map_err(|error| format!("passing on output: {error}"))?,
        Err(error) => {
            let line = format!(
                "innkeeper: the guest cannot run {}: {error}\n",
                plan.command[0].display()
            );
            Frame::Errors(line.into_bytes())
                .send(&mut port)
                .map_err(|error| format!("using the channel: {error}"))?;
            // As shells answer.
            if error.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            }
        }
    };
    // The host ends the machine once it has the exit status: what the command wrote must be on the host by then.
    rustix::fs::sync();
    Frame::Exit(code)
        .send(&mut port)
        .map_err(|error| format!("telling the exit status: {error}"))
}

struct Running {
    outputs: Vec<Output>,
    ended: PipeReader,
}

/// One stream of the command, and how its bytes are called on the channel.
struct Output {
    from: File,
    frame: fn(Vec<u8>) -> Frame,
}

fn start(plan: &Plan, mut from_host: Patient) -> io::Result<Running> {
    let mut command = Command::new(&plan.command[0]);
    command
        .args(&plan.command[1..])
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .current_dir("/");
    let (outputs, input) = match &plan.terminal {
        Some(name) => {
            command.env("TERM", name);
            let terminal = File::from(give_terminal(&mut command)?);
            // The first thing the host says is how large its terminal is: the command shall never see another size.
            if let Frame::Size(rows, columns) = Frame::receive(&mut from_host)? {
                resize(&terminal, rows, columns);
            }
            (
                vec![Output {
                    from: terminal.try_clone()?,
                    frame: Frame::Output,
                }],
                Input::Terminal(terminal),
            )
        }
        None => {
            let (stdin, input) = io::pipe()?;
            let (output, stdout) = io::pipe()?;
            let (errors, stderr) = io::pipe()?;
            command.stdin(stdin).stdout(stdout).stderr(stderr);
            let output = Output {
                from: OwnedFd::from(output).into(),
                frame: Frame::Output,
            };
            let errors = Output {
                from: OwnedFd::from(errors).into(),
                frame: Frame::Errors,
            };
            (vec![output, errors], Input::Pipe(OwnedFd::from(input).into()))
        }
    };
    let terminal = plan.terminal.is_some();
    // SAFETY: both calls are plain system calls, which is all that may happen between fork and exec.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if terminal {
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            }
            Ok(())
        })
    };
    let child = command.spawn()?;
    let (ended, mut end) = io::pipe()?;
    let pid = Pid::from_child(&child);
    thread::spawn(move || {
        let code = reap_until(pid);
        // Fails only if nobody waits any more.
        let _ = end.write_all(&[code]);
    });
    thread::spawn(move || feed(from_host, input));
    Ok(Running { outputs, ended })
}

/// Makes a new terminal the command's standard input, output and error; answers the other end.
fn give_terminal(command: &mut Command) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    command
        .stdin(Stdio::from(theirs.try_clone()?))
        .stdout(Stdio::from(theirs.try_clone()?))
        .stderr(Stdio::from(theirs));
    Ok(ours)
}

/// Waits for every child, as the first process must, until `pid` has ended. Answers its status as shells give it.
fn reap_until(pid: Pid) -> u8 {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == pid => {
                let code = status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // No child left: somebody else has taken the status, which cannot be.
            Err(_) => return u8::MAX,
        }
    }
}

/// Passes on what the command says until it has ended; answers its exit status.
fn relay(mut running: Running, port: &mut File) -> io::Result<u8> {
    let mut buffer = vec![0; PAYLOAD_BYTES];
    loop {
        let (ready, ended) = wait_for(&running)?;
        for index in ready.into_iter().rev() {
            let output = &mut running.outputs[index];
            if !pass_on(output, &mut buffer, port)? {
                running.outputs.swap_remove(index);
            }
        }
        if ended {
            break;
        }
    }
    for output in &mut running.outputs {
        rustix::fs::fcntl_setfl(&output.from, OFlags::NONBLOCK)?;
        for _ in 0..LAST_READS {
            if !pass_on(output, &mut buffer, port)? {
                break;
            }
        }
    }
    let mut code = [0];
    running.ended.read_exact(&mut code)?;
    Ok(code[0])
}

/// Waits for output or the end; answers which outputs have something, and whether the command has ended.
fn wait_for(running: &Running) -> io::Result<(Vec<usize>, bool)> {
    let outputs = running.outputs.iter().map(|output| output.from.as_fd());
    let mut polled: Vec<_> = outputs
        .chain([running.ended.as_fd()])
        .map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN))
        .collect();
    match poll(&mut polled, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ended = polled.pop().is_some_and(|end| !end.revents().is_empty());
    let ready = (0..polled.len())
        .filter(|&index| !polled[index].revents().is_empty())
        .collect();
    Ok((ready, ended))
}

/// Passes on one piece of output; `false` if there is none now and, for a stream that blocks, ever.
fn pass_on(output: &mut Output, buffer: &mut [u8], port: &mut File) -> io::Result<bool> {
    match output.from.read(buffer) {
        Ok(0) => Ok(false),
        Ok(length) => (output.frame)(buffer[..length].to_vec()).send(port).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        // A terminal answers EIO once nobody has it open any more, and EAGAIN ends the last reads.
        Err(_) => Ok(false),
    }
}

enum Input {
    Pipe(File),
    Terminal(File),
}

/// Hands the command what the host sends, as long as the machine runs.
fn feed(mut from_host: Patient, input: Input) {
    let mut input = Some(input);
    while let Ok(frame) = Frame::receive(&mut from_host) {
        match (frame, &mut input) {
            (Frame::Input(bytes), Some(Input::Pipe(to) | Input::Terminal(to))) => {
                let taken = to.write_all(&bytes);
                // The command need not read all it is given.
                input = input.filter(|_| taken.is_ok());
            }
            (Frame::InputEnd, Some(Input::Pipe(_))) => input = None,
            (Frame::Size(rows, columns), Some(Input::Terminal(terminal))) => resize(terminal, rows, columns),
            _ => {}
        }
    }
}

fn resize(terminal: &File, rows: u16, columns: u16) {
    // A terminal of a wrong size is no reason to stop.
    let _ = tcsetwinsize(
        terminal,
        Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    );
}

/// The channel, read with patience: a virtio-serial port is "at its end" until the host's side has been announced.
struct Patient(File);

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer)? {
                0 if !buffer.is_empty() => thread::sleep(Duration::from_millis(10)),
                length => return Ok(length),
            }
        }
    }
}
