//! `mute-thread apply` beside the plain notmuch query that does the same: 100,000 messages, 1,000 muted threads.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const THREADS: usize = 20_000;
const MESSAGES_A_THREAD: usize = 5;
const MUTED_THREADS: usize = 1_000;
const ROUNDS: usize = 11;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let home = tempfile::tempdir()?;
    let home = home.path();
    generate(home)?;
    run(notmuch(home).args(["new", "--quiet"]))?;
    // The first message of every 20th thread is muted; its replies are what new mail brings.
    let (mut muted, mut replies) = (String::new(), String::new());
    for thread in (0..THREADS).step_by(THREADS / MUTED_THREADS) {
        writeln!(muted, "+muted -unread -- id:{thread}.0@bench")?;
        for reply in 1..MESSAGES_A_THREAD {
            writeln!(replies, "+reply -- id:{thread}.{reply}@bench")?;
        }
    }
    tag(home, &muted)?;
    tag(home, &replies)?;

    let messages = THREADS * MESSAGES_A_THREAD;
    println!("{messages} messages, {MUTED_THREADS} muted threads, medians of {ROUNDS} interleaved rounds");
    println!(
        "{:>22} {:>14} {:>14} {:>7}",
        "messages to mark", "notmuch tag", "mute-thread", "ratio"
    );
    for fresh in [true, false] {
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // Each goes first as often as the other.
            for plain_turn in [round % 2 == 0, round % 2 != 0] {
                if fresh {
                    tag(home, "-muted +unread -- tag:reply\n")?;
                }
                if plain_turn {
                    plain.push(measure(plain_query(home))?);
                } else {
                    ours.push(measure(apply(home))?);
                }
                let left = notmuch(home)
                    .args(["count", "thread:{tag:muted} and (tag:unread or not tag:muted)"])
                    .output()?;
                assert_eq!(left.stdout, b"0\n", "something was not marked");
            }
        }
        let (plain, ours) = (median(plain), median(ours));
        println!(
            "{:>22} {:>11.1} ms {:>11.1} ms {:>6.2}x",
            if fresh {
                MUTED_THREADS * (MESSAGES_A_THREAD - 1)
            } else {
                0
            },
            plain.as_secs_f64() * 1e3,
            ours.as_secs_f64() * 1e3,
            ours.as_secs_f64() / plain.as_secs_f64()
        );
    }
    Ok(())
}

/// A Maildir with all messages, and notmuch's configuration.
fn generate(home: &Path) -> Result<()> {
    let mail = home.join("mail");
    fs::write(
        home.join("config"),
        format!(
            "[database]\npath={}\n[user]\nname=Bench\nprimary_email=bench@bench\n[new]\ntags=unread;inbox\n[maildir]\nsynchronize_flags=false\n",
            mail.display()
        ),
    )?;
    for thread in 0..THREADS {
        let folder = mail.join(format!("{}", thread / 1000));
        if thread % 1000 == 0 {
            for part in ["cur", "new", "tmp"] {
                fs::create_dir_all(folder.join(part))?;
            }
        }
        for message in 0..MESSAGES_A_THREAD {
            let mut text =
                format!("From: {thread}@bench\nSubject: Thread {thread}\nMessage-ID: <{thread}.{message}@bench>\n");
            if message > 0 {
                writeln!(
                    text,
                    "References: <{thread}.0@bench>\nIn-Reply-To: <{thread}.{}@bench>",
                    message - 1
                )?;
            }
            text.push_str("Date: Thu, 01 Jan 2026 00:00:00 +0000\n\nA body of some words.\n");
            fs::write(folder.join(format!("cur/{thread}.{message}:2,")), text)?;
        }
    }
    Ok(())
}

fn in_home(program: &str, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("HOME", home).env("NOTMUCH_CONFIG", home.join("config"));
    command.env_remove("NOTMUCH_DATABASE").env_remove("NOTMUCH_PROFILE");
    command
}

fn notmuch(home: &Path) -> Command {
    in_home("notmuch", home)
}

fn plain_query(home: &Path) -> Command {
    let mut command = notmuch(home);
    command.args(["tag", "+muted", "-unread", "--", "thread:{tag:muted}"]);
    command
}

fn apply(home: &Path) -> Command {
    let mut command = in_home(env!("CARGO_BIN_EXE_mute-thread"), home);
    command.arg("apply");
    command
}

fn tag(home: &Path, lines: &str) -> Result<()> {
    let mut child = notmuch(home).args(["tag", "--batch"]).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no input")?.write_all(lines.as_bytes())?;
    if child.wait()?.success() {
        Ok(())
    } else {
        Err("notmuch tag failed".into())
    }
}

fn run(command: &mut Command) -> Result<()> {
    if command.status()?.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed").into())
    }
}

fn measure(mut command: Command) -> Result<Duration> {
    let start = Instant::now();
    run(&mut command)?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
