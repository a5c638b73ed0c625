//! libFuzzer's output, reduced to figures.

use std::fmt;
use std::path::{Path, PathBuf};

/// The figures of one run, so far.
#[derive(Debug, Default)]
pub(super) struct Log {
    executions: u64,
    edges: u64,
    edges_of: u64,
    findings: Vec<PathBuf>,
}

impl Log {
    /// Takes one line of the fuzzer's standard error.
    pub(super) fn read(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let number = |word: Option<&str>| word.and_then(|word| word.trim_start_matches('(').parse::<u64>().ok());
        if let Some(executions) = line.strip_prefix('#').and_then(|_| words.next()?[1..].parse().ok()) {
            self.executions = executions;
            let edges = words.skip_while(|word| *word != "cov:").nth(1);
            self.edges = number(edges).unwrap_or(self.edges);
        } else if line.contains("inline 8-bit counters)") {
            let count = words.find(|word| word.starts_with('('));
            self.edges_of = number(count).unwrap_or(self.edges_of);
        } else if let Some((_, path)) = line.split_once("Test unit written to ")
            // Slow inputs are written as well, on a loaded machine any. One that hangs is a "timeout-".
            && !path.contains("/slow-unit-")
        {
            self.findings.push(path.trim().into());
        }
    }

    /// The input of the first finding.
    pub(super) fn finding(&self) -> Option<&Path> {
        self.findings.first().map(PathBuf::as_path)
    }
}

impl fmt::Display for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            executions,
            edges,
            edges_of,
            findings,
        } = self;
        let findings = findings.len();
        write!(
            formatter,
            "{executions} executions, {edges} of {edges_of} edges, {findings} findings"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_last_line_that_has_them() {
        let mut log = Log::default();
        for line in [
            "INFO: Loaded 1 modules   (4672 inline 8-bit counters): 4672 [0x5581, 0x5592), ",
            "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb",
            "#640\tNEW    cov: 335 ft: 400 corp: 3/2Kb lim: 4096 exec/s: 0 rss: 41Mb L: 9/90 MS: 1 CopyPart-",
            "#2529589\tDONE   cov: 812 ft: 2000 corp: 90/20Kb lim: 4096 exec/s: 9000 rss: 400Mb",
            "Done 2529589 runs in 301 second(s)",
        ] {
            log.read(line);
        }
        assert_eq!(log.to_string(), "2529589 executions, 812 of 4672 edges, 0 findings");
        assert_eq!(log.finding(), None);
    }

    #[test]
    fn a_finding_is_the_input_that_was_written() {
        let mut log = Log::default();
        log.read("artifact_prefix='/fuzz/artifacts/split/'; Test unit written to /fuzz/artifacts/split/slow-unit-2e");
        assert_eq!(log.finding(), None);
        log.read("artifact_prefix='/fuzz/artifacts/split/'; Test unit written to /fuzz/artifacts/split/crash-1f");
        assert_eq!(log.finding(), Some(Path::new("/fuzz/artifacts/split/crash-1f")));
        assert!(log.to_string().ends_with("1 findings"));
    }
}
