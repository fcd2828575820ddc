//! From a name to a file: absolute paths, libraries as ld.so finds them, programs as a shell does.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::BinaryError;

/// Where ld.so looks when its cache does not know a library (ld.so(8)), with the directories of distributions that have
/// several architectures.
const LIBRARIES: [&str; 6] =
    ["/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"];
/// Where programs are looked for when the environment does not say.
const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Begins the cache in its present form; an older form may stand in front (sysdeps/generic/dl-cache.h of glibc).
const CACHE_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Bytes of the cache's header, and of an entry.
const CACHE_HEADER: usize = 48;
const CACHE_ENTRY: usize = 24;
/// An entry's flags for x86-64 libraries of glibc: FLAG_ELF_LIBC6 and FLAG_X8664_LIB64.
const CACHE_X86_64: u32 = 0x0303;

/// Where the machine's files are.
pub struct Root {
    /// What stands for `/`, if something does.
    directory: Option<PathBuf>,
    /// Directories of programs.
    programs: Vec<String>,
}

impl Root {
    pub fn machine() -> Root {
        let path = std::env::var("PATH").unwrap_or_else(|_| PROGRAMS.to_owned());
        Root { directory: None, programs: path.split(':').map(str::to_owned).collect() }
    }

    pub fn below(directory: PathBuf) -> Root {
        Root { directory: Some(directory), programs: PROGRAMS.split(':').map(str::to_owned).collect() }
    }

    /// Where a path of the machine really is.
    pub fn real(&self, path: &str) -> PathBuf {
        match &self.directory {
            None => PathBuf::from(path),
            Some(directory) => directory.join(path.trim_start_matches('/')),
        }
    }

    /// The path that a target stands for. It need not be that of a file for an absolute path.
    pub fn find(&self, target: &str) -> Result<String, BinaryError> {
        if target.starts_with('/') {
            return Ok(target.to_owned());
        }
        if target.is_empty() || target.contains('/') {
            return Err(BinaryError::Relative { target: target.to_owned() });
        }
        let libraries = self.libraries();
        // `lib…` is first a library, and anything else a program.
        let found = if target.starts_with("lib") || target.contains(".so") {
            self.library(target, &libraries).transpose().or_else(|| self.program(target).map(Ok))
        } else {
            self.program(target).map(Ok).or_else(|| self.library(target, &libraries).transpose())
        };
        found.unwrap_or_else(|| {
            let names: BTreeSet<String> = libraries.iter().map(|(name, _)| stem(name).to_owned()).collect();
            Err(BinaryError::Unknown { target: target.to_owned(), libraries: names.into_iter().collect() })
        })
    }

    fn program(&self, name: &str) -> Option<String> {
        let mut paths = self.programs.iter().filter(|d| d.starts_with('/')).map(|d| format!("{d}/{name}"));
        paths.find(|path| self.real(path).is_file())
    }

    /// A library by its whole name, else by what stands in front of `.so`.
    fn library(&self, name: &str, known: &[(String, String)]) -> Result<Option<String>, BinaryError> {
        if let Some((_, path)) = known.iter().find(|(known, _)| known == name) {
            return Ok(Some(path.clone()));
        }
        let in_directory = |d: &&&str| self.real(&format!("{d}/{name}")).is_file();
        if let Some(directory) = LIBRARIES.iter().find(in_directory) {
            return Ok(Some(format!("{directory}/{name}")));
        }
        let mut paths: Vec<(PathBuf, &String)> = Vec::new();
        for (_, path) in known.iter().filter(|(known, _)| stem(known) == name) {
            let real = self.real(path);
            let real = real.canonicalize().unwrap_or(real);
            // `libx.so` and `libx.so.1` are mostly the same file.
            if !paths.iter().any(|(other, _)| *other == real) {
                paths.push((real, path));
            }
        }
        match paths.as_slice() {
            [] => Ok(None),
            [(_, path)] => Ok(Some((*path).clone())),
            _ => Err(BinaryError::Several { paths: paths.iter().map(|(_, path)| (*path).clone()).collect() }),
        }
    }

    /// Name and path of each library that ld.so's cache knows.
    fn libraries(&self) -> Vec<(String, String)> {
        let cache = fs::read(self.real("/etc/ld.so.cache")).unwrap_or_default();
        cached(&cache).unwrap_or_default()
    }
}

/// `libc` of `libc.so.6`.
fn stem(name: &str) -> &str {
    name.split_once(".so").map_or(name, |(stem, _)| stem)
}

/// The cache's entries for this architecture, those for all processors; none where it is of a form that is not known.
fn cached(cache: &[u8]) -> Option<Vec<(String, String)>> {
    let start = cache.windows(CACHE_MAGIC.len()).position(|window| window == CACHE_MAGIC)?;
    let cache = &cache[start..];
    let word = |at: usize| Some(u32::from_le_bytes(cache.get(at..at + 4)?.try_into().ok()?));
    let text = |at: usize| {
        let bytes = cache.get(word(at)? as usize..)?;
        String::from_utf8(bytes.iter().copied().take_while(|b| *b != 0).collect()).ok()
    };
    let count = word(CACHE_MAGIC.len())? as usize;
    let mut libraries = Vec::new();
    for entry in (0..count).map(|n| CACHE_HEADER + n * CACHE_ENTRY) {
        let for_all_processors = word(entry + 16)? == 0 && word(entry + 20)? == 0;
        if word(entry)? == CACHE_X86_64 && for_all_processors {
            libraries.push((text(entry + 4)?, text(entry + 8)?));
        }
    }
    Some(libraries)
}

/// The whole file, of so many bytes at most; of one that is no ELF file, its beginning.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // A pipe would wait for its writer, and a device may do anything when it is opened: ask first.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > most {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Not a byte beyond its length: files of procfs have none, and some of them wait for more to come.
    let mut file = fs::File::open(path)?.take(metadata.len());
    let mut bytes = Vec::new();
    file.by_ref().take(object::elf::ELFMAG.len() as u64).read_to_end(&mut bytes)?;
    if bytes == object::elf::ELFMAG {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(u32, u64, &str, &str)]) -> Vec<u8> {
        let mut bytes = CACHE_MAGIC.to_vec();
        bytes.extend((entries.len() as u32).to_le_bytes());
        bytes.resize(CACHE_HEADER, 0);
        let (mut table, mut strings) = (Vec::new(), Vec::new());
        let first = CACHE_HEADER + entries.len() * CACHE_ENTRY;
        for (flags, processors, name, path) in entries {
            table.extend(flags.to_le_bytes());
            for text in [name, path] {
                table.extend(((first + strings.len()) as u32).to_le_bytes());
                strings.extend(text.bytes().chain([0]));
            }
            table.extend([0; 4]);
            table.extend(processors.to_le_bytes());
        }
        [bytes, table, strings].concat()
    }

    #[test]
    fn the_cache_is_read() {
        let entries = [
            (CACHE_X86_64, 0, "libc.so.6", "/lib/x/libc.so.6"),
            (3, 0, "libc.so.6", "/lib/i386/libc.so.6"),
            (CACHE_X86_64, 1 << 62, "libm.so.6", "/lib/x/haswell/libm.so.6"),
            (CACHE_X86_64, 0, "libm.so.6", "/lib/x/libm.so.6"),
        ];
        let known = [("libc.so.6", "/lib/x/libc.so.6"), ("libm.so.6", "/lib/x/libm.so.6")];
        let known = known.map(|(name, path)| (name.to_owned(), path.to_owned()));
        let bytes = cache(&entries);
        assert_eq!(cached(&bytes), Some(known.to_vec()));
        // Behind an older form.
        assert_eq!(cached(&[b"ld.so-1.7.0\0\0\0\0\0".to_vec(), bytes.clone()].concat()), Some(known.to_vec()));
        // Cut short it is no cache, and no reason to panic.
        for length in 0..bytes.len() - 1 {
            assert!(cached(&bytes[..length]).is_none_or(|known| known.len() <= 2));
        }
    }

    #[test]
    fn only_programs_are_read_whole() {
        let read = |path: &str| read(Path::new(path), u64::MAX);
        assert_eq!(read("/proc/self/status").unwrap(), b"");
        assert_eq!(read("/etc/passwd").unwrap(), b"root");
        assert_eq!(read("/dev/null").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read("/").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let own = std::env::current_exe().unwrap();
        let length = fs::metadata(&own).unwrap().len();
        assert_eq!(super::read(&own, length).unwrap().len() as u64, length);
        assert_eq!(super::read(&own, length - 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_c_library_of_this_machine_is_found() {
        let root = Root::machine();
        let [by_stem, by_name] = ["libc", "libc.so.6"].map(|name| root.find(name).unwrap());
        assert_eq!(by_stem, by_name);
        assert!(root.real(&by_name).is_file());
        assert_eq!(root.find("/no/such/file").unwrap(), "/no/such/file");
        assert!(root.find("sh").unwrap().ends_with("/sh"));
        assert!(matches!(root.find("./sh"), Err(BinaryError::Relative { .. })));
        assert!(matches!(root.find("nothing-like-that"), Err(BinaryError::Unknown { .. })));
    }
}
