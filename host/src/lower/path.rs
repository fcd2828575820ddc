//! Paths of files.
//!
//! The problem: a path is read from its end. Each dentry knows its name and the directory that it is in, and where a
//! file system ends, the mount knows where it is mounted. The kernel has a helper for it (bpf_d_path), which few
//! programs may call: those at some dozen functions, and those that may sleep.
//!
//! The idea: the way up only collects dentries, in the scratch, which is one read for each; the way back writes their
//! names, in their order, to where the text is wanted. So a path that is too long is cut at its end, as other texts
//! are.
//!
//! What the way up has reached is kept in memory, whose contents the verifier does not keep in mind: it goes through
//! each step of both loops once, whatever way it has come. No lock is held: of a file that is moved meanwhile the path
//! may be made of both its places. Names are read up to their 0, not by their lengths, so that what is read of one that
//! changes is a name all the same.

use super::fault::Root;
use super::held::Exit;
use super::text::Found;
use super::{Lower, helper};
use crate::ir::{Address, AluOp, Cond, Register, Size, Space};
use crate::plan::layout::CUT;
use crate::plan::{Access, Directories, Mounts, Node};

/// Directories and mounts on the way up at most.
pub const STEPS: i32 = 48;
/// Bytes of a name at most, with its 0 (include/uapi/linux/limits.h: NAME_MAX).
const NAME: u32 = 256;
/// Branches that the verifier keeps in mind for a path, as bytes of compared texts, of which 8 are two.
pub const COMPARED: u32 = 6 * STEPS as u32 * 4;

/// Dentries that have been collected: more than there are steps, and a power of two, so that a number of one is bounded
/// by its bits.
const COLLECTED: u32 = 64;
/// Behind them, u64 each: how many they are, the dentry that has been reached, its mount, and that mount's root.
const COUNT: i32 = 8 * COLLECTED as i32;
const DENTRY: i32 = COUNT + 8;
const MOUNT: i32 = COUNT + 16;
const MOUNT_ROOT: i32 = COUNT + 24;
const STATE: u32 = 8 * COLLECTED + 32;

/// Bytes that writing a path of so many bytes may write: the last name may go beyond.
pub fn room(max: u32) -> u32 {
    max + 1 + NAME
}

impl Lower<'_> {
    /// Writes the path to `to`, where there is [`room`] for it.
    pub fn path_into(
        &mut self,
        at: &Node,
        way: &Directories,
        (to, space): (Register, Space),
        max: u32,
        exit: &Exit,
    ) -> Found {
        self.compared += COMPARED;
        let before = self.scratch.used;
        let state = self.reserve(STATE);
        let state = self.scratch_at(state);
        self.start(at, way, state, exit);
        let (rooted, cut) = (self.b.register(), self.b.register());
        self.way_up(way, state, (rooted, cut), exit);
        let length = self.way_back(way, state, (rooted, cut), (to, space), max, exit);
        self.release(before);
        Found { length: self.bounded(length, max), cut }
    }

    /// Notes where the way begins.
    fn start(&mut self, at: &Node, way: &Directories, state: Register, exit: &Exit) {
        let word = |at| Address::at(state, Space::MapValue, at);
        self.b.store(word(COUNT), 0, Size::B8);
        match way.mounts {
            None => {
                let dentry = self.plain(at, exit);
                self.b.store(word(DENTRY), dentry, Size::B8);
            }
            Some(mounts) => {
                let path = self.value(at, exit);
                let root = self.root(at, path, false);
                let dentry = self.b.alu(AluOp::Add, path, mounts.dentry as i32);
                let dentry = self.probe(dentry, 8, Access::Kernel, root, exit);
                self.b.store(word(DENTRY), dentry, Size::B8);
                let mount = self.b.alu(AluOp::Add, path, mounts.mount as i32);
                let mount = self.probe(mount, 8, Access::Kernel, Root::Sound, exit);
                self.enter_mount(mount, mounts, state, exit);
            }
        }
        // A file that has not been opened yet has none, which is no fault.
        let dentry = self.b.load(word(DENTRY), Size::B8);
        let absent = self.leave(exit);
        self.b.leave_if(Cond::Eq, dentry, 0, absent);
    }

    fn enter_mount(&mut self, mount: Register, mounts: Mounts, state: Register, exit: &Exit) {
        self.b.store(Address::at(state, Space::MapValue, MOUNT), mount, Size::B8);
        let root = self.behind(mount, mounts.root as i32, exit);
        self.b.store(Address::at(state, Space::MapValue, MOUNT_ROOT), root, Size::B8);
    }

    /// The pointer that lies so many bytes behind this one.
    fn behind(&mut self, pointer: Register, offset: i32, exit: &Exit) -> Register {
        let from = self.b.alu(AluOp::Add, pointer, offset);
        self.probe(from, 8, Access::Kernel, Root::Sound, exit)
    }

    /// Collects dentries up to the root. `rooted` becomes 1 where that was reached, so that the path begins with `/`.
    fn way_up(&mut self, way: &Directories, state: Register, (rooted, cut): (Register, Register), exit: &Exit) {
        let word = |at| Address::at(state, Space::MapValue, at);
        let (head, body, inside, named) = (self.b.block(), self.b.block(), self.b.block(), self.b.block());
        let (top, alone, root, deep, join) =
            (self.b.block(), self.b.block(), self.b.block(), self.b.block(), self.b.block());
        let step = self.b.constant(0);
        self.b.copy(cut, self.zero);
        self.b.jump(head);
        self.b.enter(head);
        self.b.branch(Cond::Ge, step, STEPS, deep, body);
        self.b.enter(body);
        self.b.alu_to(AluOp::Add, step, step, 1);
        let dentry = self.b.load(word(DENTRY), Size::B8);
        match way.mounts {
            None => self.b.jump(inside),
            Some(mounts) => {
                let (end, outside) = (self.b.block(), self.b.block());
                let mount_root = self.b.load(word(MOUNT_ROOT), Size::B8);
                self.b.branch(Cond::Eq, dentry, mount_root, end, inside);
                self.b.enter(end);
                let mount = self.b.load(word(MOUNT), Size::B8);
                let outer = self.behind(mount, mounts.outer, exit);
                let outer = self.b.alu(AluOp::Add, outer, mounts.inside as i32);
                // The first of all mounts is mounted in itself.
                self.b.branch(Cond::Eq, outer, mount, root, outside);
                self.b.enter(outside);
                let point = self.behind(mount, mounts.point, exit);
                self.b.store(word(DENTRY), point, Size::B8);
                self.enter_mount(outer, mounts, state, exit);
                self.b.jump(head);
            }
        }
        self.b.enter(inside);
        let parent = self.behind(dentry, way.parent as i32, exit);
        self.b.branch(Cond::Eq, parent, dentry, top, named);
        self.b.enter(named);
        self.collect(dentry, state);
        self.b.store(word(DENTRY), parent, Size::B8);
        self.b.jump(head);
        // The root of a file system, or what is in no directory at all, as a pipe is: that has a name of its own.
        self.b.enter(top);
        let count = self.b.load(word(COUNT), Size::B8);
        self.b.branch(Cond::Ne, count, 0, root, alone);
        self.b.enter(alone);
        self.collect(dentry, state);
        self.b.copy(rooted, self.zero);
        self.b.jump(join);
        self.b.enter(root);
        self.b.alu_to(AluOp::Add, rooted, self.zero, 1);
        self.b.jump(join);
        self.b.enter(deep);
        self.b.copy(rooted, self.zero);
        self.b.alu_to(AluOp::Add, cut, self.zero, i32::from(CUT));
        self.b.jump(join);
        self.b.enter(join);
    }

    fn collect(&mut self, dentry: Register, state: Register) {
        let count = self.b.load(Address::at(state, Space::MapValue, COUNT), Size::B8);
        let at = self.collected(count, state);
        self.b.store(Address::at(at, Space::MapValue, 0), dentry, Size::B8);
        let more = self.b.alu(AluOp::Add, count, 1);
        self.b.store(Address::at(state, Space::MapValue, COUNT), more, Size::B8);
    }

    /// Where the dentry of that number is kept.
    fn collected(&mut self, number: Register, state: Register) -> Register {
        let bounded = self.b.alu(AluOp::And, number, COLLECTED as i32 - 1);
        let distance = self.b.alu(AluOp::Lsh, bounded, 3);
        self.b.alu(AluOp::Add, state, distance)
    }

    /// Writes the names, the last that was collected first; how many bytes they are.
    fn way_back(
        &mut self,
        way: &Directories,
        state: Register,
        (rooted, cut): (Register, Register),
        (to, space): (Register, Space),
        max: u32,
        exit: &Exit,
    ) -> Register {
        let slash = i32::from(b'/');
        let (head, body, further, first, name, fits, long, join) = (
            self.b.block(),
            self.b.block(),
            self.b.block(),
            self.b.block(),
            self.b.block(),
            self.b.block(),
            self.b.block(),
            self.b.block(),
        );
        let (position, step) = (self.b.register(), self.b.constant(0));
        let count = self.b.load(Address::at(state, Space::MapValue, COUNT), Size::B8);
        // Where the path does not begin with it, the first name is written over it.
        self.b.store(Address::at(to, space, 0), slash, Size::B1);
        self.b.alu_to(AluOp::And, position, rooted, 1);
        self.b.jump(head);
        self.b.enter(head);
        self.b.branch(Cond::Ge, step, STEPS, join, body);
        self.b.enter(body);
        self.b.branch(Cond::Eq, step, count, join, name);
        self.b.enter(name);
        self.b.branch(Cond::Eq, step, 0, first, further);
        self.b.enter(further);
        let at = self.b.alu(AluOp::Add, to, position);
        self.b.store(Address::at(at, space, 0), slash, Size::B1);
        self.b.alu_to(AluOp::Add, position, position, 1);
        self.b.jump(first);
        self.b.enter(first);
        self.b.alu_to(AluOp::Add, step, step, 1);
        let number = self.b.alu(AluOp::Sub, count, step);
        let at = self.collected(number, state);
        let dentry = self.b.load(Address::at(at, Space::MapValue, 0), Size::B8);
        let from = self.behind(dentry, way.name as i32, exit);
        let at = self.b.alu(AluOp::Add, to, position);
        let read = self.helper(helper::PROBE_READ_KERNEL_STR, &[at.into(), (NAME as i32).into(), from.into()]);
        self.leave_if_failed(Cond::Slt, read, 1, Root::Sound, exit);
        let end = self.b.alu(AluOp::Add, position, read);
        let end = self.b.alu(AluOp::Sub, end, 1);
        self.b.branch(Cond::Gt, end, max as i32, long, fits);
        self.b.enter(fits);
        // What stands on the stack is learned nothing of by a branch, before 6.8: so it is put there behind it.
        self.b.alu_to(AluOp::Add, position, end, 0);
        self.b.jump(head);
        self.b.enter(long);
        self.b.set(position, i64::from(max));
        self.b.alu_to(AluOp::Add, cut, self.zero, i32::from(CUT));
        self.b.jump(join);
        self.b.enter(join);
        position
    }
}
