//! Answers from a recording about its failures.

use std::collections::BTreeSet;

use super::data::Recording;
use super::error::Error;
use super::kernel_code;
use crate::explain::Loading;
use crate::explain::alignment::Known;
use crate::explain::instruction::{self, Coverage, Exact, Suspect};
use crate::explain::origin::{self, Answer, Origin};
use crate::kernel::btf::Functions;
use crate::observe::failure::Outcome;
use crate::trace::{Call, Syscall};

/// Functions that are probed in one run; each has up to 20 probes.
const SUSPECTS_MAX: usize = 128;
/// Functions that are probed at most: each takes the kernel some milliseconds to set up.
const PROBED: usize = 4000;

/// What is known of a failed call, and the instruction that made its errno.
pub type Found = (Answer, Option<Exact>);

impl Recording {
    /// The functions that failed calls ran through and that may have returned an errno.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood.
    pub fn functions_of_failures(&self) -> Result<Vec<String>, Error> {
        fn add(call: &Call, functions: &Functions, names: &mut BTreeSet<String>) {
            if functions.may_fail(&call.function) {
                names.insert(call.function.clone());
            }
            call.children.iter().for_each(|call| add(call, functions, names));
        }
        let mut names = BTreeSet::new();
        for syscall in self.syscalls()?.iter().filter(|syscall| syscall.failed()) {
            syscall
                .tree
                .roots
                .iter()
                .for_each(|call| add(call, &self.functions, &mut names));
        }
        Ok(names.into_iter().take(PROBED).collect())
    }

    /// For each failure where the errno came from, where that is known.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood.
    pub fn explain(&self) -> Result<Vec<Option<Answer>>, Error> {
        Ok(self
            .explain_exactly()?
            .into_iter()
            .map(|found| Some(found?.0))
            .collect())
    }

    /// As [`Self::explain`], with the instruction that made the errno, where instructions were probed and it was hit.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood.
    pub fn explain_exactly(&self) -> Result<Vec<Option<Found>>, Error> {
        let syscalls = self.syscalls()?;
        let exact = self.answers(&syscalls).map(|found| {
            let (mut answer, syscall) = found?;
            let exact = instruction::exact(&self.suspects, &self.refused, syscall, &answer);
            if matches!(exact, Some(Exact::NotLoaded(_))) {
                // It may be the one that computed the errno, or it was told it by what was not seen.
                answer.certainty = answer.certainty.unproved();
            }
            Some((answer, exact))
        });
        Ok(exact.collect())
    }

    /// The answers, with the doubts that the kernel's code raises.
    fn answers<'s>(&'s self, syscalls: &'s [Syscall]) -> impl Iterator<Item = Option<(Answer, &'s Syscall)>> {
        let known = Known {
            functions: &self.functions,
            loading: self.loading.as_ref(),
        };
        let answers = origin::answers(&self.failures, syscalls, known, self.has_returns).into_iter();
        answers.map(|found| {
            let (mut answer, syscall) = found?;
            self.doubt(&mut answer, syscall);
            Some((answer, syscall))
        })
    }

    /// For each failure, explained by [`Self::explain_exactly`], which blocks of the function that made the errno were run,
    /// where they were all probed.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood.
    pub fn coverage(&self) -> Result<Vec<Option<Coverage>>, Error> {
        let syscalls = self.syscalls()?;
        let coverage = self.answers(&syscalls).map(|found| {
            let (answer, syscall) = found?;
            instruction::coverage(&self.suspects, &self.refused, syscall, &answer)
        });
        Ok(coverage.collect())
    }

    /// A function that has no instruction to load its errno has it from elsewhere: from a field where another one put it
    /// (an error of a socket), or from a function that is not in the trace. Nor is it the one for certain if it has one, and
    /// calls a function that cannot be in the trace and has one too.
    fn doubt(&self, answer: &mut Answer, syscall: &Syscall) {
        let Origin::Function(function) = &answer.origin else {
            return;
        };
        let errno = i32::try_from(-syscall.returned).unwrap_or(0);
        let pair = (function.clone(), errno);
        let made = |loading: &Loading| loading.plainly.contains(&pair) && !loading.elsewhere.contains(&pair);
        if !self.loading.as_ref().is_some_and(made) {
            answer.certainty = answer.certainty.unproved();
        }
    }

    /// Every function that a failed call ran through, with the call's errno, from functions on of which `wanted` is true.
    pub(super) fn ran_in_failures(&self, wanted: impl Fn(&str, i32) -> bool) -> Result<BTreeSet<(String, i32)>, Error> {
        fn add(
            call: &Call,
            errno: i32,
            inside: bool,
            wanted: &dyn Fn(&str, i32) -> bool,
            ran: &mut BTreeSet<(String, i32)>,
        ) {
            let inside = inside || wanted(&call.function, errno);
            if inside {
                ran.insert((call.function.clone(), errno));
            }
            let children = call.children.iter();
            children.for_each(|call| add(call, errno, inside, wanted, ran));
        }
        let mut ran = BTreeSet::new();
        for syscall in self.syscalls()?.iter().filter(|syscall| syscall.failed()) {
            let errno = i32::try_from(-syscall.returned).unwrap_or(0);
            let roots = syscall.tree.roots.iter();
            roots.for_each(|call| add(call, errno, false, &wanted, &mut ran));
        }
        Ok(ran)
    }

    /// The functions that made errnos in this recording, each with its errno.
    pub(super) fn origins(&self) -> Result<BTreeSet<(String, i32)>, Error> {
        let mut origins = BTreeSet::new();
        for (failure, answer) in self.failures.iter().zip(self.explain()?) {
            if let (Outcome::Errno(errno), Some(Origin::Function(function))) =
                (failure.outcome, answer.map(|answer| answer.origin))
            {
                origins.insert((function, errno));
            }
        }
        Ok(origins)
    }

    /// The functions that made errnos in this recording, as the code of the kernel that runs here has them.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood, or its code cannot be read.
    pub fn suspects(&self) -> Result<Vec<Suspect>, Error> {
        kernel_code::suspects(self.origins()?.into_iter().take(SUSPECTS_MAX))
    }
}
