//! The README's macro and hook, in a real mutt in a terminal.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::documents::readme_block;
use crate::mailbox::{MUTE_THREAD, Mailbox};

/// A terminal of its own, with mutt in it.
struct Terminal<'a> {
    mailbox: &'a Mailbox,
}

impl<'a> Terminal<'a> {
    fn with_mutt(mailbox: &'a Mailbox) -> Self {
        let terminal = Self { mailbox };
        let rc = mailbox.home().join("muttrc");
        let settings = "set sort=threads\nset mbox_type=Maildir\nset folder=~/mail\nset spoolfile=~/mail\nset record=\nset mail_check=1\nset timeout=1\nset quit=yes\n";
        fs::write(&rc, format!("{settings}{}", readme_block("muttrc"))).unwrap();
        let mutt = format!("exec mutt -n -F {} -f {}", rc.display(), mailbox.maildir().display());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "40", &mutt]);
        terminal
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.mailbox.command("tmux");
        let socket = self.mailbox.home().join("tmux");
        command.arg("-S").arg(socket).args(arguments);
        command.env_remove("TMUX").env("PATH", path()).env("LC_ALL", "C.UTF-8");
        command
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = self
            .command(arguments)
            .output()
            .expect("tmux is installed by `cargo xtask setup`");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn go_to(&self, number: &str) {
        self.tmux(&["send-keys", number, "Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn wait_until(&self, what: &str, happened: impl Fn(&str) -> bool) {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if happened(&screen) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no {what}:\n{screen}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // A failed test is unwinding here, and mutt may have ended: no second panic.
        drop(self.command(&["kill-server"]).output());
    }
}

/// mute-thread, before everything else.
fn path() -> String {
    let program = Path::new(MUTE_THREAD).parent().unwrap();
    format!("{}:{}", program.display(), std::env::var("PATH").unwrap())
}

fn index_with_hook(mailbox: &Mailbox) {
    let hooks = mailbox.maildir().join(".notmuch/hooks");
    fs::create_dir_all(&hooks).unwrap();
    let hook = hooks.join("post-new");
    fs::write(&hook, readme_block("sh")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let mut new: Command = mailbox.command("notmuch");
    let output = new.args(["new", "--quiet"]).env("PATH", path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The flags column of the message with this subject (threads show a tree in front of it).
fn is_new(screen: &str, subject: &str) -> bool {
    let line = screen.lines().find(|line| line.trim_end().ends_with(subject));
    line.is_some_and(|line| line[..12].contains(['N', 'O']))
}

fn message_number(screen: &str, subject: &str) -> String {
    let line = screen.lines().find(|line| line.ends_with(&format!(") {subject}")));
    line.unwrap().split_whitespace().next().unwrap().to_owned()
}

#[test]
fn pressing_m_in_mutt_mutes_the_thread_and_the_hook_keeps_it_muted() {
    let mailbox = Mailbox::new();
    mailbox.deliver("shed", &[]);
    mailbox.deliver("shed-reply", &["shed"]);
    mailbox.receive("talk", &[]);
    assert_eq!(mailbox.unread(), ["shed", "shed-reply", "talk"]);
    let terminal = Terminal::with_mutt(&mailbox);
    terminal.wait_until("message list", |screen| {
        screen.contains("talk") && screen.contains("shed")
    });
    // The threads stand in the order of their dates, which are equal: shed may be first or last.
    let shed = |screen: &str| message_number(screen, "shed");
    terminal.go_to(&shed(&terminal.screen()));

    terminal.press("M");
    terminal.wait_until("tag", |_| mailbox.muted() == ["shed", "shed-reply"]);
    terminal.wait_until("read thread in mutt", |screen| {
        !screen.contains("Press any key") && !is_new(screen, "shed") && is_new(screen, "talk")
    });
    assert_eq!(mailbox.unread(), ["talk"]);

    mailbox.deliver("late-reply", &["shed"]);
    index_with_hook(&mailbox);
    assert_eq!(mailbox.unread(), ["talk"]);
    terminal.wait_until("late reply in mutt", |screen| screen.contains("late-reply"));

    // Having marked the thread read, mutt went on to the next.
    terminal.go_to(&shed(&terminal.screen()));
    terminal.tmux(&["send-keys", "Escape", "M"]);
    terminal.wait_until("tag taken away", |_| mailbox.muted().is_empty());
    mailbox.deliver("latest-reply", &["shed"]);
    index_with_hook(&mailbox);
    assert_eq!(mailbox.unread(), ["latest-reply", "talk"]);
}

#[test]
fn mutt_shows_why_a_message_cannot_be_muted() {
    let mailbox = Mailbox::new();
    mailbox.deliver("unindexed", &[]);
    let terminal = Terminal::with_mutt(&mailbox);
    terminal.wait_until("message list", |screen| screen.contains(") unindexed"));
    terminal.press("M");
    terminal.wait_until("sentence", |screen| {
        screen.contains("mute-thread: not in the notmuch database: <unindexed@test>")
            && screen.contains("Press any key")
    });
}
