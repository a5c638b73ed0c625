//! The initramfs of a guest that cannot mount its root by itself, or that runs one command: innkeeper as `/init`, its
//! dependencies, and the modules.

use std::io;
use std::path::{Component, Path};

use super::cpio::Archive;
use super::modules::Module;
use super::own_program;
use crate::guest::places;
use crate::guest::plan::{self, Plan};

/// Builds the archive. `plan` says what to do once its modules are loaded; its lists of files are filled in here.
pub(crate) fn build(modules: &[Module], mut plan: Plan) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    let mut directories = Vec::new();
    for directory in [places::PROC, places::SYS, places::DEV, places::NEW_ROOT, MODULES] {
        make_directories(&mut archive, &mut directories, &Path::new(directory).join("x"));
    }

    for module in modules {
        let path = format!("{MODULES}/{}", module.name);
        archive.file(&path, 0o644, &module.contents);
        plan.files.push(path.clone());
        plan.modules.push(path);
    }
    let program = own_program::program()?;
    archive.file(places::PROGRAM, 0o755, &program);
    plan.files.push(places::PROGRAM.into());
    for part in own_program::libraries(&program)? {
        let path = part
            .path
            .to_str()
            .ok_or_else(|| io::Error::other("a library's path is not UTF-8"))?
            .to_owned();
        make_directories(&mut archive, &mut directories, &part.path);
        archive.file(&path, 0o755, &part.contents);
        plan.files.push(path);
    }
    archive.file(plan::PATH, 0o644, &plan.write());
    Ok(archive.finish())
}

const MODULES: &str = "/modules";

/// Adds the directories above `path` that are not there yet.
fn make_directories(archive: &mut Archive, made: &mut Vec<String>, path: &Path) {
    let mut directory = String::new();
    for component in path.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(name) = component else { continue };
        directory = format!("{directory}/{}", name.to_string_lossy());
        if !made.contains(&directory) {
            archive.directory(&directory);
            made.push(directory.clone());
        }
    }
}
