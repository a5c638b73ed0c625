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
        told.contains("openat(AT_FDCWD, \"/no/such/file\", O_RDONLY) = -1 ENOENT"),
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

#[test]
fn why_finds_in_the_hosts_log_who_refused_a_name_also_without_the_kernels_functions() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let written =
        r#"2026-11-25T00:51:04.664934Z LOOKUP unique=18 uid=0 gid=0 pid=$$ \"/such\": ENOENT: statx(parent) = ENOENT"#;
    let script = format!("echo \"{written}\" >{}; exec cat /no/such/file", log.display());
    let mut innkeeper = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    let why = innkeeper.args(["why", "--host-log"]).arg(&log);
    let output = why.args(["--", "sh", "-c", &script]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    if !told.contains("no kernel functions") {
        return eprintln!("skipped: the kernel's functions are seen here, and no FUSE server is among them");
    }
    let line = r#"  host:   statx(parent) = -1 ENOENT  on the host, for LOOKUP "such", request 18    likely"#;
    assert!(told.contains(line), "{told}");
    std::fs::remove_file(&log).unwrap();
    let mut innkeeper = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    let output = innkeeper
        .args(["why", "--host-log"])
        .arg(&log)
        .args(["--", "false"])
        .output();
    let told = String::from_utf8_lossy(&output.unwrap().stderr).into_owned();
    assert!(told.contains("no host log: cannot read"), "{told}");
}

fn doctor(arguments: &[&str]) -> Output {
    let mut innkeeper = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    innkeeper.args(["why", "--doctor"]).args(arguments).output().unwrap()
}

#[test]
fn the_doctor_names_the_next_back_end_and_ends_by_whether_it_sees_the_kernel() {
    let output = doctor(&[]);
    let told = String::from_utf8_lossy(&output.stdout);
    for line in [
        "the next run takes the back end \"",
        "  ptrace alone      yes",
        "  tracefs ",
    ] {
        assert!(told.contains(line), "{line:?} is missing in:\n{told}");
    }
    let calls_alone = told.contains("takes the back end \"ptrace alone\"");
    assert_eq!(output.status.code(), Some(i32::from(calls_alone)));

    let output = doctor(&["--json"]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["version"], 1);
    assert_eq!(object["back_ends"].as_array().unwrap().len(), 5);
    assert_eq!(object["next"] == "ptrace-alone", calls_alone);
}

#[test]
fn the_doctor_runs_no_command() {
    assert_eq!(doctor(&["--", "true"]).status.code(), Some(2));
}

fn told(arguments: &[&str]) -> (Option<i32>, String) {
    let mut innkeeper = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    let output = innkeeper.arg("why").args(arguments).output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn why_attaches_to_a_process_for_a_time_and_lets_it_go() {
    let script = "while :; do cat /no/such/file 2>/dev/null; sleep 0.05; done";
    let mut process = Command::new("sh").args(["-c", script]).spawn().unwrap();
    let number = process.id().to_string();
    let failure = "openat(AT_FDCWD, \"/no/such/file\", O_RDONLY) = -1 ENOENT";
    let report = |time| told(&["-p", &number, "--for", time]);
    let (mut status, mut told) = report("500ms");
    if !told.contains(failure) {
        // A busy machine gives a process little in a short time.
        (status, told) = report("30s");
    }
    let attached = format!("innkeeper: attached to process {number} (1 thread), until it ends or the time is up\n");
    assert!(told.contains(&attached), "{told}");
    assert!(told.contains(failure), "{told}");
    assert_eq!(status, Some(0));
    assert!(process.try_wait().unwrap().is_none(), "it runs on");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn why_says_in_a_sentence_why_a_process_is_not_attached_to() {
    let missing = told(&["-p", "2147483647"]);
    assert_eq!(
        missing,
        (Some(125), "innkeeper: there is no process 2147483647\n".to_owned())
    );
    for (arguments, sentence) in [
        (&["-p", "1", "--", "true"][..], "give one of them"),
        (&["-p", "1", "--exact"], "run a command a second time"),
        (&["-p", "1", "--again"], "run a command a second time"),
        (&["-p", "1", "--for", "soon"], "write it as in 10s, 500ms, 2m or 1h"),
        (&["--for", "1s", "--", "true"], "--process <PID>"),
        (&["-p", "0"], "0 is not in 1.."),
        (&["-p", "1", "--explain", "file"], "cannot be used with"),
    ] {
        let (status, told) = told(arguments);
        assert!(told.contains(sentence), "{arguments:?}: {told}");
        assert_eq!(status, Some(2), "{arguments:?}");
    }
}

#[test]
fn why_tells_the_limit_that_a_write_ran_into() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "ulimit -f 1; head -c 5000 /dev/zero >{}/big",
        directory.path().display()
    );
    let (_, told) = told(&["--errno", "EFBIG", "--", "sh", "-c", &script]);
    let value = told.lines().find(|line| line.starts_with("  value:  RLIMIT_FSIZE is "));
    assert!(value.is_some_and(|value| value.ends_with("    certain")), "{told}");
}

#[test]
fn why_names_the_interpreter_that_a_script_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (status, told) = told(&["--", "sh", "-c", &format!("exec {}", script.display())]);
    let script = script.display();
    let line = format!(
        "  why:    {script} is there, and the interpreter that its first line names is not: \"/no/such/interpreter\""
    );
    assert!(told.contains(&line), "{told}");
    assert_eq!(status, Some(127), "the shell's own status for it");
    let (status, told) = self::told(&["--", &script.to_string()]);
    let sentence = format!("innkeeper: cannot run {script}: No such file or directory (os error 2)\n");
    assert!(told.contains(&line) && told.ends_with(&sentence), "{told}");
    assert_eq!(status, Some(127));
}

#[test]
fn an_interrupt_for_innkeeper_alone_is_the_commands() {
    let wait = "n=0; while [ $n -lt 300 ]; do sleep 0.1; n=$((n + 1)); done";
    for signal in ["INT", "QUIT", "TERM"] {
        let script = format!("trap 'exit 9' {signal}; kill -{signal} $PPID; {wait}; exit 1");
        let (status, told) = told(&["--", "sh", "-c", &script]);
        assert_eq!(status, Some(9), "{signal}: {told}");
    }
}

#[test]
fn a_reader_that_goes_away_costs_the_command_no_status() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut innkeeper = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    let why = innkeeper.args(["why", "--", "sh", "-c", "cat /no/such/file; exit 7"]);
    assert_eq!(why.stderr(writer).status().unwrap().code(), Some(7));
}

#[test]
fn a_full_device_is_an_error_of_innkeepers_own() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut innkeeper = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    let why = innkeeper.args(["why", "--", "true"]);
    assert_eq!(why.stderr(full).status().unwrap().code(), Some(125));
}
