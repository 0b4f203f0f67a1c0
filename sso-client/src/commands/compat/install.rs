//! The links that make the tools start by their own names, and the list of their switches.

use std::{ffi::OsStr, fs, io, os::unix::fs::symlink, path::Path};

use serde::Serialize;

use super::{Tool, switches};
use crate::{failure::Failure, output::Output};

#[derive(Debug, Serialize)]
struct LinksDocument {
    program: String,
    links: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SwitchesDocument {
    switches: Vec<SwitchDocument>,
}

#[derive(Debug, Serialize)]
struct SwitchDocument {
    tool: &'static str,
    switch: String,
    state: &'static str,
    summary: &'static str,
}

pub(super) fn run(folder: &Path, output: &Output) -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::io("the own path", error))?;
    fs::create_dir_all(folder).map_err(|error| Failure::io(folder.display().to_string(), error))?;
    let mut links = Vec::new();
    for tool in Tool::ALL {
        let link = folder.join(tool.as_str());
        make(&program, &link)?;
        links.push(link.display().to_string());
    }
    let document = LinksDocument { program: program.display().to_string(), links };
    output.document(&document, |output| {
        document.links.iter().try_for_each(|link| {
            output.line(&crate::output::escape(&format!("{link} -> {}", document.program)))
        })
    })
}

/// Makes one link. A link to a program `sso` that is there is replaced; nothing else is.
fn make(program: &Path, link: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::io(link.display().to_string(), error);
    match fs::symlink_metadata(link) {
        Ok(found) if found.is_symlink() && is_ours(program, link) => {
            fs::remove_file(link).map_err(failed)?;
        }
        Ok(_) => {
            return Err(Failure::refused(
                format!("{}: something else has this name", link.display()),
                "choose another folder, or move it away",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    symlink(program, link).map_err(failed)
}

fn is_ours(program: &Path, link: &Path) -> bool {
    fs::read_link(link).is_ok_and(|target| {
        let name = target.file_name();
        name == Some(OsStr::new("sso")) || name == program.file_name()
    })
}

pub(super) fn list(output: &Output) -> Result<(), Failure> {
    let mut all = Vec::new();
    for tool in Tool::ALL {
        all.extend(tool.switches().into_iter().map(|switch| SwitchDocument {
            tool: tool.as_str(),
            switch: switches::form(switch),
            state: switch.state.as_str(),
            summary: switch.summary,
        }));
    }
    let row = |one: &SwitchDocument| {
        [one.tool, &one.switch, one.state, one.summary].map(str::to_owned).to_vec()
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    output.document(&SwitchesDocument { switches: all }, |output| {
        output.table(&["TOOL", "SWITCH", "STATE", "WHAT IT DOES"], rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_replaced_and_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("ssomanage");
        for program in ["/opt/one/sso", "/opt/two/sso"] {
            make(Path::new(program), &link).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(program));
        }
        let file = folder.path().join("ssoconfig");
        fs::write(&file, "mine").unwrap();
        assert_eq!(make(Path::new("/opt/sso"), &file).unwrap_err().exit_code(), 1);
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        let foreign = folder.path().join("ssoclient");
        symlink("/opt/vendor/ssoclient", &foreign).unwrap();
        assert_eq!(make(Path::new("/opt/sso"), &foreign).unwrap_err().exit_code(), 1);
        assert_eq!(fs::read_link(&foreign).unwrap(), Path::new("/opt/vendor/ssoclient"));
    }
}
