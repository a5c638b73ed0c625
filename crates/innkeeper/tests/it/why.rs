use std::process::{Command, Output};

fn why(command: &[&str]) -> Output {
    let mut innkeeper = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    innkeeper.args(["why", "--"]).args(command).output().unwrap()
}

#[test]
fn why_tells_the_failed_call_and_keeps_output_and_status() {
    let output = why(&["sh", "-c", "echo out; cat /no/such/file 2>/dev/null; exit 7"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("openat(AT_FDCWD, \"/no/such/file\", 0, 0) = -1 ENOENT"),
        "{told}"
    );
    assert_eq!(
        (output.stdout.as_slice(), output.status.code()),
        (b"out\n".as_slice(), Some(7))
    );
}

#[test]
fn why_ends_like_a_shell_for_a_command_that_cannot_be_run() {
    assert_eq!(why(&["/no/such/program"]).status.code(), Some(127));
    assert_eq!(why(&["/etc/passwd"]).status.code(), Some(126));
}
