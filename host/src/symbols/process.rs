//! Names of the addresses of processes: by what /proc says is mapped there, and the symbols of the file.
//!
//! What is read is bounded, for a plugin may ask for any process, and the process decides what it has mapped: so many
//! processes in a batch, so many bytes of what they have mapped and of files, so many files at once, none larger than
//! [`MAX_FILE`]. What goes beyond is shown as addresses.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::reading::Reading;
use super::with_offset;
use crate::binary::Binary;

/// Processes of which the mappings are read in one batch at most.
const PROCESSES: usize = 256;
/// Bytes of what a process has mapped, as /proc says it: a line for each mapping, of which the kernel allows 65,530
/// unless it is told otherwise. Those behind are not known.
const MAX_MAPS: u64 = 16 << 20;
/// Bytes of what all processes of a batch have mapped, as /proc says it.
const ALL_MAPS: u64 = 64 << 20;
/// Files of which the symbols are kept at most.
const FILES: usize = 64;
/// Bytes of memory that the symbols of all files take at most; one file's may take more, and is then kept alone.
const KEPT: usize = 512 << 20;
/// Bytes of a file at most that is read for its symbols.
const MAX_FILE: u64 = 512 << 20;
/// Bytes of files that are read in one batch at most.
const ALL_FILES: u64 = 1 << 30;
/// The inode of the first pid namespace (include/linux/proc_ns.h: PROC_PID_INIT_INO). Programs tell processes' numbers
/// as they are there; in every other the same number is another process.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// What is known of processes.
pub struct Processes {
    mapped: HashMap<u32, Vec<Mapping>>,
    /// Bytes of mappings that may still be read in this batch.
    maps_left: u64,
    files: Files,
    /// Of files and mappings.
    reading: Reading,
    /// Of names as compilers write them: it counts as the plugin's time, and yet may take no longer than the other.
    naming: Reading,
    are_known_by_number: Option<bool>,
}

/// The symbols of files.
struct Files {
    known: HashMap<Key, Known>,
    /// Bytes of memory that they take.
    size: usize,
    /// How often a file has been asked for.
    asked: u64,
    /// Bytes that may still be read in this batch.
    left: u64,
}

/// A file, by its device, its inode and when it was last changed.
type Key = (u64, u64, i64);

struct Known {
    /// None where it is no program and no library.
    binary: Option<Arc<Binary>>,
    /// When it was last asked for.
    asked: u64,
}

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

impl Default for Processes {
    fn default() -> Processes {
        let files = Files { known: HashMap::new(), size: 0, asked: 0, left: ALL_FILES };
        Processes {
            mapped: HashMap::new(),
            maps_left: ALL_MAPS,
            files,
            reading: Reading::default(),
            naming: Reading::default(),
            are_known_by_number: None,
        }
    }
}

impl Processes {
    /// The name of what lies there in the process.
    pub fn name(&mut self, process: u32, address: u64) -> String {
        self.found(process, address).unwrap_or_else(|| format!("{address:#x}"))
    }

    pub fn forget(&mut self) {
        self.mapped.clear();
        self.maps_left = ALL_MAPS;
        self.files.left = ALL_FILES;
        self.reading.begin();
        self.naming.begin();
    }

    /// What is read, and for how long.
    pub fn reading(&mut self) -> &mut Reading {
        &mut self.reading
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
            let most = MAX_MAPS.min(self.maps_left);
            let read = || {
                let text = File::open(format!("/proc/{process}/maps")).and_then(|file| lines(file, most));
                let text = text.unwrap_or_default();
                (mappings(&text), text.len() as u64)
            };
            let (mappings, length) = self.reading.read(read)?;
            self.maps_left -= length;
            self.mapped.insert(process, mappings);
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
        let binary = self.files.get(file, &mapping.name, &mut self.reading);
        let within = binary.as_ref().and_then(|binary| binary.address(offset));
        let named = binary.as_ref().zip(within);
        let named = named.and_then(|(binary, address)| self.naming.read(|| binary.name_at(address))?);
        Some(match (named, within) {
            (Some((name, offset)), _) => format!("{} [{short}]", with_offset(&name, offset)),
            // As `objdump -d` prints it.
            (None, within) => format!("{:#x} [{short}]", within.unwrap_or(offset)),
        })
    }
}

impl Files {
    /// The symbols of a file; none where it is no program and no library, and where enough has been read for this time.
    fn get(&mut self, file: PathBuf, path: &str, reading: &mut Reading) -> Option<Arc<Binary>> {
        let metadata = fs::metadata(&file).ok().filter(|m| m.is_file() && m.len() <= MAX_FILE)?;
        let key = (metadata.dev(), metadata.ino(), metadata.ctime());
        self.asked += 1;
        if let Some(known) = self.known.get_mut(&key) {
            known.asked = self.asked;
            return known.binary.clone();
        }
        let left = self.left.checked_sub(metadata.len())?;
        let read = || {
            let binary = Binary::read(path.to_owned(), file, metadata.len()).ok()?;
            // Its functions are sorted on first use.
            let _ = binary.name_at(0);
            Some(Arc::new(binary))
        };
        let binary = reading.read(read)?;
        self.left = left;
        let size = size_of_known(&binary);
        self.make_room(size, FILES, KEPT);
        self.size += size;
        self.known.insert(key, Known { binary: binary.clone(), asked: self.asked });
        binary
    }

    /// Forgets those that have not been asked for the longest, until one more of this size makes no more than so many
    /// files and bytes.
    fn make_room(&mut self, size: usize, files: usize, bytes: usize) {
        while self.known.len() >= files || self.size + size > bytes {
            let Some((key, _)) = self.known.iter().min_by_key(|(_, known)| known.asked) else { return };
            let key = *key;
            self.size -= self.known.remove(&key).map_or(0, |known| size_of_known(&known.binary));
        }
    }
}

fn size_of_known(binary: &Option<Arc<Binary>>) -> usize {
    binary.as_ref().map_or(0, |binary| binary.size())
}

/// What is read, without what lies behind so many bytes, and without a line that is cut there.
fn lines(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(most).read_to_end(&mut text)?;
    text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    Ok(text)
}

/// `7f0a1c000000-7f0a1c021000 r-xp 00028000 fe:01 1234   /usr/lib/libc.so.6`, in the order of addresses.
fn mappings(text: &[u8]) -> Vec<Mapping> {
    let mapping = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let offset = words.nth(1)?;
        let number = |word| u64::from_str_radix(word, 16).ok();
        let name = words.nth(2).unwrap_or_default().trim_start();
        Some(Mapping { start: number(start)?, end: number(end)?, offset: number(offset)?, name: name.to_owned() })
    };
    text.split(|byte| *byte == b'\n').filter_map(mapping).collect()
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
            mappings(text.as_bytes()),
            [
                mapping(0x7f0a_1c00_0000, 0x7f0a_1c02_1000, 0x28000, "/usr/lib/my libc.so.6"),
                mapping(0x7f0a_1d00_0000, 0x7f0a_1d02_1000, 0, ""),
                mapping(0x7ffd_0000, 0x7ffe_0000, 0, "[vdso]"),
            ]
        );
    }

    #[test]
    fn what_is_mapped_is_read_up_to_a_limit() {
        let line = |n: u64| format!("{:x}-{:x} r-xp 00000000 fe:01 1234 /lib/x.so\n", n << 12, (n + 1) << 12);
        let mut text = String::new();
        (1 << 20..)
            .take_while(|n| {
                text.push_str(&line(*n));
                text.len() as u64 <= MAX_MAPS
            })
            .for_each(drop);
        assert!(text.len() as u64 > MAX_MAPS);
        let read = lines(text.as_bytes(), MAX_MAPS).unwrap();
        let cut = MAX_MAPS as usize - read.len();
        assert!((0..line(1 << 20).len()).contains(&cut), "{cut} bytes of a line are left out");
        let all = mappings(&read);
        assert_eq!(all.len(), read.iter().filter(|byte| **byte == b'\n').count());
        assert_eq!(all.last().map(|last| last.name.as_str()), Some("/lib/x.so"), "the last one is whole");
        assert_eq!(lines(&b"cut"[..], 100).unwrap(), b"");
    }

    /// Files that are none of programs, in a folder of their own; each has two bytes.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, files: usize) -> Scratch {
            let path = std::env::temp_dir().join(format!("porthole-symbols-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            (0..files).for_each(|n| fs::write(path.join(n.to_string()), "no").unwrap());
            Scratch(path)
        }

        fn file(&self, n: usize) -> PathBuf {
            self.0.join(n.to_string())
        }

        fn is_known(&self, n: usize, files: &Files) -> bool {
            let metadata = fs::metadata(self.file(n)).unwrap();
            files.known.contains_key(&(metadata.dev(), metadata.ino(), metadata.ctime()))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn one_file_gives_way_to_one() {
        let scratch = Scratch::new("way", FILES + 2);
        let mut files = Processes::default().files;
        let get =
            |n: usize, files: &mut Files| assert!(files.get(scratch.file(n), "/x", &mut Reading::default()).is_none());
        (0..FILES).for_each(|n| get(n, &mut files));
        get(0, &mut files);
        get(FILES, &mut files);
        get(FILES + 1, &mut files);
        assert_eq!(files.known.len(), FILES);
        let gone: Vec<usize> = (0..FILES + 2).filter(|n| !scratch.is_known(*n, &files)).collect();
        assert_eq!(gone, [1, 2], "those that nobody has asked for since the longest");
    }

    #[test]
    fn files_are_read_up_to_a_limit_in_each_batch() {
        let scratch = Scratch::new("limit", 3);
        let mut processes = Processes::default();
        processes.files.left = 5;
        (0..3).for_each(|n| assert!(processes.files.get(scratch.file(n), "/x", &mut Reading::default()).is_none()));
        let known = |processes: &Processes| [0, 1, 2].map(|n| scratch.is_known(n, &processes.files));
        assert_eq!(known(&processes), [true, true, false]);
        processes.forget();
        processes.files.get(scratch.file(2), "/x", &mut Reading::default());
        assert_eq!((known(&processes), processes.files.left), ([true; 3], ALL_FILES - 2));
    }

    #[test]
    fn nothing_is_read_when_the_time_for_it_is_used_up() {
        let mut processes = Processes::default();
        let scratch = Scratch::new("time", 1);
        let known = |processes: &mut Processes| {
            processes.files.get(scratch.file(0), "/x", &mut processes.reading);
            processes.name(std::process::id(), known_address());
            (scratch.is_known(0, &processes.files), processes.mapped.len())
        };
        processes.reading.use_up();
        assert_eq!(known(&mut processes), (false, 0));
        assert_eq!((processes.files.left, processes.maps_left), (ALL_FILES, ALL_MAPS), "it may be read later");
        processes.forget();
        assert!(known(&mut processes).0);
        assert!(processes.reading.spent() > std::time::Duration::ZERO);
    }

    fn known_address() -> u64 {
        lines_of_maps as fn() as *const () as u64
    }

    #[test]
    fn symbols_are_kept_up_to_a_limit() {
        let mut files = Processes::default().files;
        let own = files.get(std::env::current_exe().unwrap(), "/own", &mut Reading::default()).unwrap();
        let size = own.size();
        assert!(size > 1 << 20 && files.size == size, "{size} and {}", files.size);
        files.make_room(1, FILES, size + 1);
        assert_eq!(files.known.len(), 1);
        files.make_room(2, FILES, size + 1);
        assert_eq!((files.known.len(), files.size), (0, 0));
        // However large, the one that is asked for is there.
        files.make_room(usize::MAX / 2, FILES, 0);
    }

    #[test]
    fn root_functions_of_this_process_have_their_names() {
        let mut processes = Processes::default();
        let (own, of) = (lines_of_maps as fn() as *const () as u64, std::process::id());
        let name = processes.name(of, own + 1);
        assert!(name.starts_with("porthole::symbols::process::tests::lines_of_maps+0x1 [porthole-"), "{name}");
        // However long the first took to read.
        processes.forget();
        let libc = processes.name(of, libc::getenv as *const () as u64);
        assert!(libc.starts_with("getenv [libc"), "{libc}");
        assert_eq!(processes.name(of, 1), "0x1");
        assert_eq!(processes.name(u32::MAX, own), format!("{own:#x}"), "there is no such process");
    }
}
