//! Names of the addresses of processes: by what /proc says is mapped there, and the symbols of the file.
//!
//! What is read is bounded, for a plugin may ask for any process: so many processes in a batch, so many files at once, none larger than [`MAX_FILE`]. What goes beyond is
//! shown as addresses.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::with_offset;
use crate::binary::Binary;

/// Processes of which the mappings are read in one batch at most.
const PROCESSES: usize = 256;
/// Files of which the symbols are kept at most.
const FILES: usize = 64;
/// Bytes of a file at most that is read for its symbols.
const MAX_FILE: u64 = 512 << 20;
/// The inode of the first pid namespace (include/linux/proc_ns.h: PROC_PID_INIT_INO). Programs tell processes' numbers as they are there; in every other the same number is
/// another process.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// What is known of processes.
#[derive(Default)]
pub struct Processes {
    mapped: HashMap<u32, Vec<Mapping>>,
    files: HashMap<File, Option<Arc<Binary>>>,
    are_known_by_number: Option<bool>,
}

/// A file, by its device, its inode and when it was last changed.
type File = (u64, u64, i64);

/// A line of /proc/PID/maps.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    /// Where in the file it begins.
    offset: u64,
    /// The file's path, or what the kernel calls the memory: `[vdso]`. Empty for memory without a name.
    name: String,
}

impl Processes {
    /// The name of what lies there in the process.
    pub fn name(&mut self, process: u32, address: u64) -> String {
        self.found(process, address).unwrap_or_else(|| format!("{address:#x}"))
    }

    pub fn forget(&mut self) {
        self.mapped.clear();
    }

    fn found(&mut self, process: u32, address: u64) -> Option<String> {
        let are_known = self.are_known_by_number.get_or_insert_with(|| {
            fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace.as_os_str() == FIRST_NAMESPACE)
        });
        if !*are_known {
            return None;
        }
        if !self.mapped.contains_key(&process) {
            if self.mapped.len() >= PROCESSES {
                return None;
            }
            let text = fs::read(format!("/proc/{process}/maps")).unwrap_or_default();
            self.mapped.insert(process, mappings(&String::from_utf8_lossy(&text)));
        }
        let all = self.mapped.get(&process)?;
        let mapping = &all[all.partition_point(|mapping| mapping.end <= address)..].first()?;
        if mapping.start > address || mapping.name.is_empty() {
            return None;
        }
        let short = mapping.name.rsplit('/').next().unwrap_or_default();
        if !mapping.name.starts_with('/') {
            return Some(format!("{address:#x} {short}"));
        }
        // It is the file that is mapped, also where another has its path by now.
        let file = PathBuf::from(format!("/proc/{process}/map_files/{:x}-{:x}", mapping.start, mapping.end));
        let offset = mapping.offset + (address - mapping.start);
        let binary = file_of(&mut self.files, file, &mapping.name);
        let within = binary.as_ref().and_then(|binary| binary.address(offset));
        let named = binary.as_ref().zip(within).and_then(|(binary, address)| binary.name_at(address));
        Some(match (named, within) {
            (Some((name, offset)), _) => format!("{} [{short}]", with_offset(&name, offset)),
            // As `objdump -d` prints it.
            (None, within) => format!("{:#x} [{short}]", within.unwrap_or(offset)),
        })
    }
}

/// The symbols of a file; none where it is no program and no library.
fn file_of(files: &mut HashMap<File, Option<Arc<Binary>>>, file: PathBuf, path: &str) -> Option<Arc<Binary>> {
    let metadata = fs::metadata(&file).ok().filter(|m| m.is_file() && m.len() <= MAX_FILE)?;
    let key = (metadata.dev(), metadata.ino(), metadata.ctime());
    if !files.contains_key(&key) && files.len() >= FILES {
        files.clear();
    }
    files.entry(key).or_insert_with(|| Binary::read(path.to_owned(), file, MAX_FILE).ok().map(Arc::new)).clone()
}

/// `7f0a1c000000-7f0a1c021000 r-xp 00028000 fe:01 1234   /usr/lib/libc.so.6`, in the order of addresses.
fn mappings(text: &str) -> Vec<Mapping> {
    let mapping = |line: &str| {
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let offset = words.nth(1)?;
        let number = |word| u64::from_str_radix(word, 16).ok();
        let name = words.nth(2).unwrap_or_default().trim_start();
        Some(Mapping { start: number(start)?, end: number(end)?, offset: number(offset)?, name: name.to_owned() })
    };
    text.lines().filter_map(mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let text = "7f0a1c000000-7f0a1c021000 r-xp 00028000 fe:01 1234                       /usr/lib/my libc.so.6\n\
            7f0a1d000000-7f0a1d021000 rw-p 00000000 00:00 0 \nbroken\n7ffd0000-7ffe0000 r-xp 00000000 00:00 0      [vdso]\n";
        let mapping = |start, end, offset, name: &str| Mapping { start, end, offset, name: name.to_owned() };
        assert_eq!(
            mappings(text),
            [
                mapping(0x7f0a_1c00_0000, 0x7f0a_1c02_1000, 0x28000, "/usr/lib/my libc.so.6"),
                mapping(0x7f0a_1d00_0000, 0x7f0a_1d02_1000, 0, ""),
                mapping(0x7ffd_0000, 0x7ffe_0000, 0, "[vdso]"),
            ]
        );
    }

    #[test]
    fn root_functions_of_this_process_have_their_names() {
        let mut processes = Processes::default();
        let (own, of) = (lines_of_maps as fn() as *const () as u64, std::process::id());
        let name = processes.name(of, own + 1);
        assert!(name.starts_with("porthole::symbols::process::tests::lines_of_maps+0x1 [porthole-"), "{name}");
        let libc = processes.name(of, libc::getenv as *const () as u64);
        assert!(libc.starts_with("getenv [libc"), "{libc}");
        assert_eq!(processes.name(of, 1), "0x1");
        assert_eq!(processes.name(u32::MAX, own), format!("{own:#x}"), "there is no such process");
    }
}
