//! Calls that a test makes itself, in a separate process.

use why::ptrace::{Report, run};

/// Runs an ignored function of the same test binary under ptrace.
pub(crate) fn made(case: &str) -> Report {
    let test = std::env::current_exe().unwrap();
    let words = [
        test.as_os_str(),
        case.as_ref(),
        "--exact".as_ref(),
        "--ignored".as_ref(),
        "--test-threads=1".as_ref(),
    ];
    run(words.map(Into::into).to_vec()).unwrap()
}
