//! Calls of kernel functions, and walks, as a [`Writer`] writes them.

use porthole::kernel::TypeId;
use porthole::plan::{Origin, Target, Type};

use super::kfuncs::{Call, Result, Takes};
use super::vocabulary::{Word, walk};
use super::writer::{NUMBER, Writer};

/// Walks inside one another at most.
const MAX_NESTED: usize = 2;

impl Writer<'_> {
    /// A number that the kernel is asked for.
    pub(super) fn asked_number(&mut self, depth: u32) -> Option<String> {
        match self.random.below(8) {
            0 if !self.vocabulary.kfuncs.lacking.is_empty() => {
                let name = self.vocabulary.kfuncs.lacking
                    [self.random.below(self.vocabulary.kfuncs.lacking.len() as u64) as usize]
                    .clone();
                Some(format!("(bool){name}({})", self.number(depth)))
            }
            1 | 2 => self.walked_number(depth),
            3 | 4 => {
                let (text, ty) = self.called(|result| matches!(result, Result::Pointer(_)), depth)?;
                self.member(&Word { text, ty })
            }
            _ => Some(self.called(|result| matches!(result, Result::Number), depth)?.0),
        }
    }

    /// A pointer that the kernel is asked for.
    pub(super) fn asked_pointer(&mut self, depth: u32) -> Option<Word> {
        let (text, ty) = match self.random.below(6) {
            0 => return self.first(depth, |writer, item, _| Some((item.text.clone(), writer.of_first(&item.ty)))),
            1 => self.called(|result| matches!(result, Result::Named), depth)?,
            _ => self.called(|result| matches!(result, Result::Pointer(_)), depth)?,
        };
        Some(Word { text, ty })
    }

    /// A text that the kernel is asked for.
    pub(super) fn asked_text(&mut self, depth: u32, longest: u32) -> Option<String> {
        match self.random.below(3) {
            0 => {
                Some(self.first(depth, |w, _, depth| Some((w.text(depth, longest), Type::Text { max: longest })))?.text)
            }
            1 => {
                let (text, ty) = self.called(|result| matches!(result, Result::Pointer(_)), depth)?;
                let id = Word { text: String::new(), ty }.structure()?;
                let is_task = self.btf.tag(id) == "task_struct";
                is_task.then(|| format!("{text}.comm"))
            }
            _ => {
                self.longest_written = longest;
                Some(self.called(|result| matches!(result, Result::Text), depth)?.0)
            }
        }
    }

    /// A call that gives such a thing.
    fn called(&mut self, wanted: impl Fn(&Result) -> bool, depth: u32) -> Option<(String, Type)> {
        let some: Vec<&Call> = self.vocabulary.kfuncs.calls.iter().filter(|call| wanted(&call.result)).collect();
        if some.is_empty() {
            return None;
        }
        let seldom: Vec<&Call> = some.iter().copied().filter(|call| call.is_seldom()).collect();
        // Not all have arguments here.
        for _ in 0..4 {
            let from = if seldom.is_empty() || self.random.below(4) > 0 { &some } else { &seldom };
            let call = from[self.random.below(from.len() as u64) as usize];
            // What ends the program would end most of them.
            if call.name == "bpf_throw" && self.random.below(8) > 0 {
                continue;
            }
            if let Some(text) = self.call(call, depth) {
                let unknown = Type::Pointer { target: Target::Unknown, origin: Origin::Kernel };
                let ty = match &call.result {
                    Result::Pointer(ty) => ty.clone(),
                    Result::Named => unknown,
                    Result::Number => NUMBER,
                    Result::Text => Type::Text { max: 0 },
                };
                return Some((text, ty));
            }
        }
        None
    }

    fn call(&mut self, call: &Call, depth: u32) -> Option<String> {
        let arguments: Option<Vec<String>> = call.takes.iter().map(|takes| self.argument(takes, depth)).collect();
        Some(format!("{}({})", call.name, arguments?.join(", ")))
    }

    fn argument(&mut self, takes: &Takes, depth: u32) -> Option<String> {
        Some(match takes {
            Takes::Number { bytes, signed } => match self.random.below(4) {
                0 => {
                    let (number, shift) = (self.random.number(), 64 - bytes.min(&8) * 8);
                    if *signed {
                        (number << shift >> shift).max(-i64::MAX).to_string()
                    } else {
                        ((number as u64) << shift >> shift).to_string()
                    }
                }
                1 => self.random.pick(&["tid", "pid", "task.pid", "cgroup", "cpu"]).to_owned(),
                2 => self.random.pick(&["0", "1", "2", "3"]).to_owned(),
                _ => self.number(depth.saturating_sub(1)),
            },
            Takes::Constant(0) => "0".to_owned(),
            Takes::Constant(8) => self.random.below(9).to_string(),
            Takes::Constant(most) => {
                let most = (*most).min(self.longest_written.into()) as u64;
                self.random.pick(&[1, 2, 15, 16, most / 2, most]).clamp(1, most).to_string()
            }
            Takes::Name => {
                format!("\"{}\"", self.random.pick(&["task_struct", "file", "cgroup", "sk_buff", "list_head"]))
            }
            Takes::Structure(id) => self.vouched_for(*id, depth)?,
            Takes::Text if self.random.below(4) == 0 => self.passed_address(),
            Takes::Text | Takes::Dynptr => self.text(depth.saturating_sub(1), 64),
            Takes::Quoted => self.literal(),
            Takes::Address => self.passed_address(),
            Takes::Word => self.number(depth.saturating_sub(1)),
        })
    }

    fn passed_address(&mut self) -> String {
        let is_kernels =
            |word: &Word| matches!(word.ty, Type::Pointer { origin: Origin::Trusted | Origin::Kernel, .. });
        match self.random.below(3) {
            0 => self.random.pick(&["&task.comm", "task", "task.mm"]).to_owned(),
            _ => self.maybe_word(is_kernels).map_or_else(|| "&task.pid".to_owned(), |word| word.text),
        }
    }

    /// A pointer to such a structure that the kernel vouches for, or something that can be made one.
    fn vouched_for(&mut self, id: TypeId, depth: u32) -> Option<String> {
        let name = self.btf.tag(id);
        if name == "bpf_cpumask" && (depth == 0 || self.random.below(2) == 0) {
            let create = self.vocabulary.kfuncs.calls.iter().find(|call| call.name == "bpf_cpumask_create")?;
            return self.call(create, 0);
        }
        if depth > 0 && (self.random.below(2) == 0 || name == "bpf_cpumask") {
            let gives = |result: &Result| matches!(result, Result::Pointer(Type::Pointer { target: Target::Type(of), .. }) if *of == id);
            if let Some((text, _)) = self.called(gives, depth.saturating_sub(1)) {
                return Some(text);
            }
        }
        let is_one = |word: &Word| {
            word.structure() == Some(id) && !matches!(word.ty, Type::Pointer { origin: Origin::User, .. })
        };
        let word = if self.random.below(3) > 0 { self.maybe_word(is_one).map(|word| word.text) } else { None };
        let task = |w: &mut Self| match w.btf.structure("task_struct") {
            Some(task) if w.random.below(2) == 0 => w.vouched_for(task, depth.saturating_sub(1)),
            _ => Some("task".to_owned()),
        };
        Some(match (word, name.as_str()) {
            (Some(word), "task_struct") if self.random.below(4) == 0 => {
                format!(
                    "{word}.{}",
                    self.random.pick(&["real_parent", "group_leader", "real_parent.group_leader", "parent"])
                )
            }
            (Some(word), _) => word,
            (None, "task_struct") => self
                .random
                .pick(&["task", "task", "task.real_parent", "task.group_leader", "task.real_parent.real_parent"])
                .to_owned(),
            (None, "cgroup") => format!("{}.cgroups.dfl_cgrp", task(self)?),
            (None, "cpumask") => format!("{}.cpus_ptr", task(self)?),
            (None, "cgroup_subsys_state") => {
                let cgroup = self.btf.structure("cgroup")?;
                format!("&{}.self", self.vouched_for(cgroup, depth.saturating_sub(1))?)
            }
            (None, "file") => "task.mm.exe_file".to_owned(),
            (None, "path" | "dentry") => {
                let file = self.vouched_for(self.btf.structure("file")?, depth.saturating_sub(1))?;
                if name == "path" { format!("&{file}.f_path") } else { format!("{file}.f_path.dentry") }
            }
            _ => return None,
        })
    }

    /// A number behind a pointer to a structure.
    fn member(&mut self, word: &Word) -> Option<String> {
        let path = walk(self.random, self.btf, &word.text, word.structure()?, 2)?;
        Some(format!("({}){path}", self.random.pick(&["u64", "bool", "int"])))
    }

    fn walked_number(&mut self, depth: u32) -> Option<String> {
        let (over, item) = self.source(depth)?;
        if self.random.below(6) == 0 {
            return Some(format!("count({over})"));
        }
        let name = self.enter(item);
        let condition = self.of_item(depth);
        let text = match self.random.below(7) {
            0 => format!("count({over}, {name}, {condition})"),
            1 => format!("any({over}, {name}, {condition})"),
            2 => format!("all({over}, {name}, {condition})"),
            n => {
                let does = ["first", "sum", "max", "min"][n as usize - 3];
                let value = self.of_item(depth);
                match self.random.below(3) {
                    0 => format!("{does}({over}, {name}, {value})"),
                    _ => format!("{does}({over}, {name}, {condition}, {value})"),
                }
            }
        };
        self.leave();
        Some(text)
    }

    /// What `value` makes of the first object that a walk finds.
    fn first(&mut self, depth: u32, value: impl Fn(&mut Self, &Word, u32) -> Option<(String, Type)>) -> Option<Word> {
        let (over, item) = self.source(depth)?;
        let name = self.enter(item.clone());
        let condition = self.of_item(depth);
        let value = value(self, &Word { text: name.clone(), ty: item }, depth.saturating_sub(1));
        self.leave();
        let (value, ty) = value?;
        Some(Word { text: format!("first({over}, {name}, {condition}, {value})"), ty })
    }

    /// What the first object is outside of its walk.
    fn of_first(&self, item: &Type) -> Type {
        match item {
            Type::Pointer { target, .. } => Type::Pointer { target: target.clone(), origin: Origin::Kernel },
            other => other.clone(),
        }
    }

    /// Something about the object at hand, mostly.
    fn of_item(&mut self, depth: u32) -> String {
        let item = self.items.last().cloned();
        match (self.random.below(3), item) {
            (0, _) | (_, None) => self.number(depth.saturating_sub(1)),
            (_, Some(item)) => match self.member(&item) {
                Some(member) => match self.random.below(3) {
                    0 => format!("({member} {} {})", self.random.pick(&["==", "<", "&", "+"]), self.leaf()),
                    _ => member,
                },
                None if item.ty == NUMBER => item.text,
                None => self.leaf(),
            },
        }
    }

    /// What is walked over, and the type of its objects.
    fn source(&mut self, depth: u32) -> Option<(String, Type)> {
        let sources = &self.vocabulary.kfuncs.sources;
        if sources.is_empty() || self.items.len() >= MAX_NESTED {
            return None;
        }
        let source = &sources[self.random.below(sources.len() as u64) as usize];
        let mut text = source.form.to_owned();
        for takes in &source.takes {
            let argument = self.argument(takes, depth)?;
            text = text.replacen('#', &argument, 1);
        }
        Some((text, source.item.clone()))
    }

    fn enter(&mut self, ty: Type) -> String {
        let text = format!("i{}", self.items.len());
        self.items.push(Word { text: text.clone(), ty });
        text
    }

    fn leave(&mut self) {
        self.items.pop();
    }
}
