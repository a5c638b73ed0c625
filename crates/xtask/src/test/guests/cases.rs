//! The list of tested guests, and which of them an ordinary run starts.

use std::path::Path;

use anyhow::Result;

use super::{boot, dax, devices, root, suites, tracefs, uml, why};
use crate::guest::Lab;
use crate::guest::qemu::{Device, Variant};
use Daemons::{Any, Ours};
use When::{Ordinary, WithAll};

/// The text after `--guest` that selects all guests.
const ALL: &str = "all";

/// Returns what was seen, in a few words.
pub(super) type Body = fn(&Lab, Variant, &Path) -> Result<String>;

/// A [`Body`], or one that knows more than its arguments.
type Test = Box<dyn Fn(&Lab, Variant, &Path) -> Result<String> + Send + Sync>;

/// In which runs a guest is started, apart from those that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// In each.
    Ordinary,
    /// With `--guest all`: an ordinary run looks at the same in User-Mode Linux, on another kernel or in fewer guests.
    WithAll,
}

/// Which daemons can pass a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Daemons {
    Ours,
    /// Ours and the peer, which has split rings, one request queue and no IN_ORDER, and ends with its guest.
    Any,
}

/// One test in a guest.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) variant: Variant,
    pub(super) body: Test,
    pub(super) when: When,
    daemons: Daemons,
}

impl Case {
    pub(super) fn is_uml(&self) -> bool {
        self.variant.device == Device::Uml
    }
}

/// Which guests a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection<'a> {
    Ordinary,
    All,
    /// Those with this text in their names.
    Named(&'a str),
}

impl<'a> Selection<'a> {
    /// From the text after `--guest`, if any.
    pub(super) fn from_text(text: Option<&'a str>) -> Selection<'a> {
        match text {
            None => Selection::Ordinary,
            Some(ALL) => Selection::All,
            Some(text) => Selection::Named(text),
        }
    }

    pub(super) fn has(self, case: &Case) -> bool {
        match self {
            Selection::Ordinary => case.when == Ordinary,
            Selection::All => true,
            Selection::Named(text) => case.name.contains(text),
        }
    }
}

/// All cases that our daemon can pass, or else any daemon. Those that take minutes come first, so that no processor waits for
/// one at the end.
pub(super) fn cases(ours: bool) -> Result<Vec<Case>> {
    let mut cases = why();
    cases.extend(dax());
    cases.extend(whole_file_system());
    cases.extend(boots());
    cases.extend(devices()?);
    cases.extend(roots());
    cases.extend(user_mode_linux());
    cases.retain(|case| ours || case.daemons == Any);
    Ok(cases)
}

fn case(when: When, daemons: Daemons, name: &str, variant: Variant, body: Body) -> Case {
    Case {
        name: format!("{name}/{variant}"),
        variant,
        body: Box::new(body),
        when,
        daemons,
    }
}

fn variant(device: Device, packed: bool, queues: u16) -> Variant {
    Variant { device, packed, queues }
}

fn why() -> Vec<Case> {
    let list: [(When, &str, Body); 9] = [
        (Ordinary, "why-6.12", why::on_6_12),
        (Ordinary, "why-6.1", why::on_6_1),
        (WithAll, "why-instance", tracefs::own_instance),
        (Ordinary, "why-top", tracefs::shared_top),
        (WithAll, "why-instance-steps", tracefs::own_instance_at_steps),
        (WithAll, "why-top-steps", tracefs::shared_top_at_steps),
        (WithAll, "why-conditions-6.12", why::conditions_on_6_12),
        (Ordinary, "why-conditions-6.1", why::conditions_on_6_1),
        (Ordinary, "why-values", why::context::values),
    ];
    let one = variant(Device::HostFs, false, 1);
    list.map(|(when, name, body)| case(when, Ours, name, one, body)).into()
}

/// On the one device that shows the guest a window.
fn dax() -> Vec<Case> {
    let generic = variant(Device::NewGeneric, true, 1);
    let cases = dax::CASES.iter();
    cases
        .map(|&(when, name, body)| case(when, Ours, name, generic, body))
        .collect()
}

/// A QEMU that is killed, the POSIX suite, and a copied tree. Of the last two an ordinary run has those of User-Mode Linux.
fn whole_file_system() -> Vec<Case> {
    let [split, packed] = [false, true].map(|packed| variant(Device::HostFs, packed, 1));
    vec![
        case(WithAll, Ours, "crash", split, root::crash),
        case(WithAll, Any, "posix", split, suites::posix),
        case(WithAll, Any, "tree", split, suites::copied_tree),
        case(Ordinary, Ours, "crash", packed, root::crash),
        case(WithAll, Ours, "posix", packed, suites::posix),
        case(WithAll, Ours, "tree", packed, suites::copied_tree),
    ]
}

fn boots() -> Vec<Case> {
    let [host, new] = [variant(Device::HostFs, false, 1), variant(Device::NewFs, true, 4)];
    vec![
        case(Ordinary, Ours, "boot", host, boot::boot),
        case(Ordinary, Ours, "boot", new, boot::boot),
        case(Ordinary, Ours, "boot-modules", host, boot::boot_with_modules),
    ]
}

/// Each device that has a script, split and packed.
fn devices() -> Result<Vec<Case>> {
    let both = |script: devices::Script| {
        [(false, "split"), (true, "packed")].map(|(packed, format)| {
            let script = script.clone();
            Case {
                name: format!("{}/{format}", script.name),
                variant: variant(Device::HostFs, packed, 1),
                body: Box::new(move |lab, variant, directory| script.run(lab, variant, directory)),
                when: Ordinary,
                daemons: Ours,
            }
        })
    };
    Ok(devices::scripts()?.into_iter().flat_map(both).collect())
}

/// Each device of each QEMU, ring format and number of queues. An ordinary run has each of these once at least.
fn roots() -> Vec<Case> {
    let list = [
        (Ordinary, Any, Device::HostFs, false, 1),
        (WithAll, Ours, Device::HostFs, false, 4),
        (WithAll, Ours, Device::HostFs, true, 1),
        (WithAll, Ours, Device::HostFs, true, 4),
        (WithAll, Any, Device::NewFs, false, 1),
        (WithAll, Ours, Device::NewFs, false, 4),
        (WithAll, Ours, Device::NewFs, true, 1),
        (Ordinary, Ours, Device::NewFs, true, 4),
        (Ordinary, Ours, Device::NewGeneric, false, 1),
        (WithAll, Ours, Device::NewGeneric, false, 4),
        (WithAll, Ours, Device::NewGeneric, true, 1),
        (WithAll, Ours, Device::NewGeneric, true, 4),
    ];
    list.map(|(when, daemons, device, packed, queues)| {
        case(when, daemons, "root", variant(device, packed, queues), root::root)
    })
    .into()
}

/// Last, since they are the only ones that take seconds.
fn user_mode_linux() -> Vec<Case> {
    let formats = [(false, "split"), (true, "packed")].into_iter();
    let all = formats.flat_map(|(packed, format)| {
        uml::CASES.iter().map(move |&(when, daemons, name, body)| Case {
            name: format!("uml-{format}-{name}"),
            variant: variant(Device::Uml, packed, 1),
            body: Box::new(body),
            when,
            daemons: if packed { Ours } else { daemons },
        })
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ours: bool, text: Option<&str>) -> Vec<String> {
        let mut cases = cases(ours).unwrap();
        cases.retain(|case| Selection::from_text(text).has(case));
        cases.into_iter().map(|case| case.name).collect()
    }

    #[test]
    fn a_peer_gets_the_cases_that_it_can_pass() {
        let names = names(false, Some("all"));
        assert!(
            names
                .iter()
                .all(|name| !name.contains("packed") && !name.contains("boot") && !name.contains("4q"))
        );
        assert!(names.contains(&"posix/qemu7-fs/split/1q".to_owned()));
        assert!(names.contains(&"uml-split-posix".to_owned()));
        assert!(!names.contains(&"uml-split-crash".to_owned()), "it ends with its guest");
    }

    #[test]
    fn an_ordinary_run_has_each_device_ring_format_and_number_of_queues_over_pci() {
        let mut cases = cases(true).unwrap();
        cases.retain(|case| case.name.starts_with("root/") && Selection::Ordinary.has(case));
        let any = |fits: fn(Variant) -> bool| cases.iter().any(|case| fits(case.variant));
        assert!(any(|variant| variant.device == Device::HostFs));
        assert!(any(|variant| variant.device == Device::NewFs));
        assert!(any(|variant| variant.device == Device::NewGeneric));
        assert!(any(|variant| variant.packed) && any(|variant| !variant.packed));
        assert!(any(|variant| variant.queues == 1) && any(|variant| variant.queues == 4));
    }

    #[test]
    fn a_name_selects_among_all_guests_and_the_word_all_selects_them() {
        let ordinary = names(true, None);
        let all = names(true, Some("all"));
        let matrix = names(true, Some("root/"));
        assert_eq!(matrix.len(), 12);
        assert!(ordinary.len() < all.len());
        assert!(matrix.iter().all(|name| all.contains(name)));
        assert!(matrix.iter().any(|name| !ordinary.contains(name)));
    }

    #[test]
    fn no_two_guests_have_the_same_name() {
        let mut names = names(true, Some("all"));
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
