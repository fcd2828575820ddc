//! Call stacks and addresses, in all ways in which a plugin can show them: for each call of `getppid` by threads of the
//! name that `--comm` gives, the event forwarded, a row of the event, and a row of the names that the host gives when
//! it is asked.

use porthole_guest::prelude::*;

#[derive(Event)]
#[probe(attach = "rawtracepoint:sys_enter", when = "args.id == 110")]
struct Call {
    #[expr("ksym(task)")]
    thread: KernelSymbol,
    #[expr("usym(4096 + 0)")]
    nowhere: UserSymbol,
    #[expr("kstack")]
    kernel: KernelStack,
    #[expr("ustack(2)")]
    user: Option<UserStack>,
}

#[derive(Default)]
struct Stacks;

impl Plugin for Stacks {
    type Event<'a> = Call;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        if let Some(comm) = args.value::<String>("--comm")? {
            declaration.when(&format!("comm == {}", quote(&comm)));
        }
        Ok(())
    }

    fn on(&mut self, call: &Call, out: &mut Output) {
        out.forward();
        out.row(call);
        let kernel = out.names(&call.kernel).join(" ");
        let user = call.user.as_ref().map(|user| out.names(user).join(" "));
        let others = [out.names(&call.thread), out.names(&call.nowhere), out.names(7u64)].concat().join(" ");
        let row = out.new_row("names").column("kernel", &kernel).column("user", user.as_deref());
        row.column("others", &others).send();
    }
}

porthole_guest::register!(Stacks);
