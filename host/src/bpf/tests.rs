use super::Reg::*;
use super::Size::*;
use super::Width::*;
use super::*;

const L: Label = Label(0);

/// One instruction, its bytes as LLVM and RFC 9669 give them, and its text.
#[rustfmt::skip]
fn spellings() -> Vec<(Insn, &'static [u8], &'static str)> {
    vec![
        (Insn::mov(W64, R1, R2), &[0xbf, 0x21, 0, 0, 0, 0, 0, 0], "r1 = r2"),
        (Insn::mov(W32, R1, R2), &[0xbc, 0x21, 0, 0, 0, 0, 0, 0], "w1 = w2"),
        (Insn::mov_imm(W64, R1, 5), &[0xb7, 0x01, 0, 0, 5, 0, 0, 0], "r1 = 5"),
        (Insn::mov_imm(W64, R1, -1), &[0xb7, 0x01, 0, 0, 0xff, 0xff, 0xff, 0xff], "r1 = -1"),
        (Insn::mov_imm(W32, R1, -1), &[0xb4, 0x01, 0, 0, 0xff, 0xff, 0xff, 0xff], "w1 = -1"),
        (Insn::load_imm64(R1, 0x1122_3344_5566_7788),
            &[0x18, 0x01, 0, 0, 0x88, 0x77, 0x66, 0x55, 0, 0, 0, 0, 0x44, 0x33, 0x22, 0x11], "r1 = 0x1122334455667788 ll"),
        (Insn::load_imm64(R9, -2),
            &[0x18, 0x09, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "r9 = 0xfffffffffffffffe ll"),
        (Insn::load_map(R1, MapIndex(3)), &[0x18, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "r1 = map #3"),
        (Insn::load_data(R1, 8), &[0x18, 1, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "r1 = data+8"),
        (Insn::alu(AluOp::Add, W64, R1, R2), &[0x0f, 0x21, 0, 0, 0, 0, 0, 0], "r1 += r2"),
        (Insn::alu(AluOp::Sub, W64, R1, R2), &[0x1f, 0x21, 0, 0, 0, 0, 0, 0], "r1 -= r2"),
        (Insn::alu(AluOp::Mul, W64, R1, R2), &[0x2f, 0x21, 0, 0, 0, 0, 0, 0], "r1 *= r2"),
        (Insn::alu(AluOp::Div, W64, R1, R2), &[0x3f, 0x21, 0, 0, 0, 0, 0, 0], "r1 /= r2"),
        (Insn::alu(AluOp::Or, W64, R1, R2), &[0x4f, 0x21, 0, 0, 0, 0, 0, 0], "r1 |= r2"),
        (Insn::alu(AluOp::And, W64, R1, R2), &[0x5f, 0x21, 0, 0, 0, 0, 0, 0], "r1 &= r2"),
        (Insn::alu(AluOp::Lsh, W64, R1, R2), &[0x6f, 0x21, 0, 0, 0, 0, 0, 0], "r1 <<= r2"),
        (Insn::alu(AluOp::Rsh, W64, R1, R2), &[0x7f, 0x21, 0, 0, 0, 0, 0, 0], "r1 >>= r2"),
        (Insn::alu(AluOp::Mod, W64, R1, R2), &[0x9f, 0x21, 0, 0, 0, 0, 0, 0], "r1 %= r2"),
        (Insn::alu(AluOp::Xor, W64, R1, R2), &[0xaf, 0x21, 0, 0, 0, 0, 0, 0], "r1 ^= r2"),
        (Insn::alu(AluOp::Arsh, W64, R1, R2), &[0xcf, 0x21, 0, 0, 0, 0, 0, 0], "r1 s>>= r2"),
        (Insn::alu(AluOp::Add, W32, R3, R4), &[0x0c, 0x43, 0, 0, 0, 0, 0, 0], "w3 += w4"),
        (Insn::alu_imm(AluOp::Arsh, W32, R3, 7), &[0xc4, 0x03, 0, 0, 7, 0, 0, 0], "w3 s>>= 7"),
        (Insn::alu_imm(AluOp::And, W64, R9, 255), &[0x57, 0x09, 0, 0, 255, 0, 0, 0], "r9 &= 255"),
        (Insn::alu_imm(AluOp::Mod, W32, R0, 10), &[0x94, 0x00, 0, 0, 10, 0, 0, 0], "w0 %= 10"),
        (Insn::neg(W64, R1), &[0x87, 0x01, 0, 0, 0, 0, 0, 0], "r1 = -r1"),
        (Insn::neg(W32, R1), &[0x84, 0x01, 0, 0, 0, 0, 0, 0], "w1 = -w1"),
        (Insn::to_be(R1, 16), &[0xdc, 0x01, 0, 0, 16, 0, 0, 0], "r1 = be16 r1"),
        (Insn::to_be(R1, 32), &[0xdc, 0x01, 0, 0, 32, 0, 0, 0], "r1 = be32 r1"),
        (Insn::to_be(R1, 64), &[0xdc, 0x01, 0, 0, 64, 0, 0, 0], "r1 = be64 r1"),
        (Insn::load(B1, R1, R6, 16), &[0x71, 0x61, 16, 0, 0, 0, 0, 0], "r1 = *(u8 *)(r6 +16)"),
        (Insn::load(B2, R1, R6, 16), &[0x69, 0x61, 16, 0, 0, 0, 0, 0], "r1 = *(u16 *)(r6 +16)"),
        (Insn::load(B4, R1, R6, 16), &[0x61, 0x61, 16, 0, 0, 0, 0, 0], "r1 = *(u32 *)(r6 +16)"),
        (Insn::load(B8, R1, R6, -16), &[0x79, 0x61, 0xf0, 0xff, 0, 0, 0, 0], "r1 = *(u64 *)(r6 -16)"),
        (Insn::store(B1, R10, -8, R1), &[0x73, 0x1a, 0xf8, 0xff, 0, 0, 0, 0], "*(u8 *)(r10 -8) = r1"),
        (Insn::store(B8, R10, -8, R1), &[0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0], "*(u64 *)(r10 -8) = r1"),
        (Insn::store_imm(B1, R10, -1, 65), &[0x72, 0x0a, 0xff, 0xff, 65, 0, 0, 0], "*(u8 *)(r10 -1) = 65"),
        (Insn::store_imm(B4, R10, -8, -1), &[0x62, 0x0a, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff], "*(u32 *)(r10 -8) = -1"),
        (Insn::atomic_add(W64, R1, 8, R2), &[0xdb, 0x21, 8, 0, 0, 0, 0, 0], "lock *(u64 *)(r1 +8) += r2"),
        (Insn::atomic_add(W32, R1, 8, R2), &[0xc3, 0x21, 8, 0, 0, 0, 0, 0], "lock *(u32 *)(r1 +8) += r2"),
        (Insn::atomic_exchange(R1, 8, R2), &[0xdb, 0x21, 8, 0, 0xe1, 0, 0, 0], "r2 = atomic64_xchg((u64 *)(r1 +8), r2)"),
        (Insn::jump(L), &[0x05, 0, 1, 0, 0, 0, 0, 0], "goto +1 <L1>"),
        (Insn::jump_if(Cond::Eq, W64, R1, R2, L), &[0x1d, 0x21, 1, 0, 0, 0, 0, 0], "if r1 == r2 goto +1 <L1>"),
        (Insn::jump_if(Cond::Eq, W32, R1, R2, L), &[0x1e, 0x21, 1, 0, 0, 0, 0, 0], "if w1 == w2 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Eq, W64, R1, 0, L), &[0x15, 0x01, 1, 0, 0, 0, 0, 0], "if r1 == 0x0 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Ne, W64, R1, 7, L), &[0x55, 0x01, 1, 0, 7, 0, 0, 0], "if r1 != 0x7 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Gt, W64, R1, 7, L), &[0x25, 0x01, 1, 0, 7, 0, 0, 0], "if r1 > 0x7 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Ge, W64, R1, 7, L), &[0x35, 0x01, 1, 0, 7, 0, 0, 0], "if r1 >= 0x7 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Lt, W64, R1, 7, L), &[0xa5, 0x01, 1, 0, 7, 0, 0, 0], "if r1 < 0x7 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Le, W64, R1, 7, L), &[0xb5, 0x01, 1, 0, 7, 0, 0, 0], "if r1 <= 0x7 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Sgt, W64, R1, 7, L), &[0x65, 0x01, 1, 0, 7, 0, 0, 0], "if r1 s> 0x7 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Sge, W64, R1, 7, L), &[0x75, 0x01, 1, 0, 7, 0, 0, 0], "if r1 s>= 0x7 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Slt, W64, R1, 7, L), &[0xc5, 0x01, 1, 0, 7, 0, 0, 0], "if r1 s< 0x7 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Sle, W64, R1, 7, L), &[0xd5, 0x01, 1, 0, 7, 0, 0, 0], "if r1 s<= 0x7 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Set, W64, R1, 7, L), &[0x45, 0x01, 1, 0, 7, 0, 0, 0], "if r1 & 0x7 goto +1 <L1>"),
        (Insn::jump_if_imm(Cond::Slt, W32, R1, -1, L),
            &[0xc6, 0x01, 1, 0, 0xff, 0xff, 0xff, 0xff], "if w1 s< 0xffffffff goto +1 <L1>"),
        (Insn::call_helper(113), &[0x85, 0, 0, 0, 113, 0, 0, 0], "call bpf_probe_read_kernel#113"),
        (Insn::call_helper(9999), &[0x85, 0, 0, 0, 0x0f, 0x27, 0, 0], "call unknown#9999"),
        (Insn::call_function(FunctionIndex(2)), &[0x85, 0x10, 0, 0, 0xff, 0xff, 0xff, 0xff], "call function #2"),
        (Insn::call_kfunc(KfuncIndex(1)), &[0x85, 0x20, 0, 0, 0xff, 0xff, 0xff, 0xff], "call kfunc #1"),
        (Insn::exit(), &[0x95, 0, 0, 0, 0, 0, 0, 0], "exit"),
    ]
}

fn items(insns: &[Insn]) -> Vec<Item> {
    insns.iter().copied().map(Item::Insn).collect()
}

#[test]
fn every_instruction_has_its_bytes_and_its_text() {
    for (insn, bytes, text) in spellings() {
        // Jumps go over one instruction.
        let mut program = items(&[insn, Insn::mov_imm(W64, R0, 0)]);
        program.extend([Item::Bind(L), Insn::exit().into()]);
        let code = assemble(&program).unwrap();
        assert_eq!(&code.to_bytes()[..bytes.len()], bytes, "{text}");
        let listing = disassemble(&code, &[]);
        assert_eq!(listing.lines().next().unwrap(), format!("   0: {text}"));
    }
}

#[test]
fn bytes_read_back_as_the_slots_they_came_from() {
    for (_, bytes, text) in spellings() {
        for slot in bytes.chunks_exact(RawInsn::SIZE) {
            let slot = <[u8; RawInsn::SIZE]>::try_from(slot).unwrap();
            assert_eq!(RawInsn::from_bytes(slot).to_bytes(), slot, "{text}");
        }
    }
}

#[test]
fn listing_shows_labels_reasons_and_names() {
    let reasons = [
        Reason { file: "opens:enter".into(), line: 1, column: 6, text: "args.flags & O_CREAT".into() },
        Reason { file: "opens:enter".into(), line: 2, column: 1, text: "pid".into() },
    ];
    let (when, pid, end) = (ReasonId(0), ReasonId(1), Label(7));
    let code = assemble(&[
        Insn::load(B8, R6, R1, 32).because(when).into(),
        Insn::jump_if_imm(Cond::Set, W64, R6, 64, Label(2)).because(when).into(),
        Insn::jump(end).because(when).into(),
        Item::Bind(Label(2)),
        Insn::call_helper(14).because(pid).into(),
        Insn::load_map(R1, MapIndex(0)).into(),
        Insn::call_function(FunctionIndex(1)).because(pid).into(),
        Item::Bind(end),
        Insn::mov_imm(W64, R0, 0).because(when).into(),
        Insn::exit().into(),
    ])
    .unwrap();
    let names = Names { maps: &["events"], ..Names::default() };
    let expected = "\
; opens:enter:1 args.flags & O_CREAT
   0: r6 = *(u64 *)(r1 +32)
   1: if r6 & 0x40 goto +1 <L1>
   2: goto +4 <L2>
; opens:enter:2 pid
L1:
   3: call bpf_get_current_pid_tgid#14
   4: r1 = map events
   6: call function #1
; opens:enter:1 args.flags & O_CREAT
L2:
   7: r0 = 0
   8: exit
";
    assert_eq!(disassemble_named(&code, &reasons, &names), expected);
    assert_eq!(code.lines, [(0, when), (3, pid), (7, when)]);
    assert_eq!(
        code.relocations,
        [
            Relocation { slot: 4, target: Target::Map(MapIndex(0)) },
            Relocation { slot: 6, target: Target::Function(FunctionIndex(1)) },
        ]
    );
}

#[test]
fn any_slot_can_be_listed() {
    for opcode in 0..=u8::MAX {
        let code = Code { insns: vec![RawInsn { opcode, off: -5, imm: 3, ..RawInsn::default() }], ..Code::default() };
        assert!(disassemble(&code, &[]).starts_with("   0: "), "opcode {opcode:#x}");
    }
}

#[test]
fn faults_of_the_generator_are_told() {
    let exit = Item::Insn(Insn::exit());
    let jump = Item::Insn(Insn::jump(L));
    let nop = Item::Insn(Insn::mov_imm(W64, R0, 0));
    assert_eq!(assemble(&[]), Err(AssembleError::Empty));
    assert_eq!(assemble(&[Item::Bind(L)]), Err(AssembleError::Empty));
    assert_eq!(assemble(&[jump, exit]), Err(AssembleError::UnknownLabel { slot: 0, label: 0 }));
    assert_eq!(assemble(&[Item::Bind(L), Item::Bind(L), exit]), Err(AssembleError::DuplicateLabel { label: 0 }));
    assert_eq!(assemble(&[exit, nop]), Err(AssembleError::FallsOffEnd { slot: 1 }));
    let wide = Item::Insn(Insn::load_imm64(R0, 1));
    assert_eq!(assemble(&[exit, wide]), Err(AssembleError::FallsOffEnd { slot: 1 }));
    assert_eq!(assemble(&[nop, jump, Item::Bind(L)]), Err(AssembleError::FallsOffEnd { slot: 1 }));
    let write = Item::Insn(Insn::mov(W64, R10, R1));
    assert_eq!(assemble(&[nop, write, exit]), Err(AssembleError::WritesFramePointer { slot: 1 }));
}

#[test]
fn jumps_reach_as_far_as_sixteen_bits() {
    let over = |slots: usize| {
        let mut program = vec![Insn::jump(L).into()];
        program.resize(1 + slots, Insn::mov_imm(W64, R0, 0).into());
        program.extend([Item::Bind(L), Insn::exit().into()]);
        assemble(&program).map(|code| code.insns[0].off)
    };
    assert_eq!(over(32767), Ok(32767));
    assert_eq!(over(32768), Err(AssembleError::JumpTooFar { slot: 0, distance: 32768 }));
    let back = |slots: usize| {
        let mut program = vec![Item::Bind(L)];
        program.resize(slots, Insn::mov_imm(W64, R0, 0).into());
        program.push(Insn::jump(L).into());
        assemble(&program).map(|code| code.insns[code.insns.len() - 1].off)
    };
    assert_eq!(back(32768), Ok(-32768));
    assert_eq!(back(32769), Err(AssembleError::JumpTooFar { slot: 32768, distance: -32769 }));
}

#[test]
fn sizes_and_registers_have_their_numbers() {
    for size in [B1, B2, B4, B8] {
        assert_eq!(Size::from_bytes(size.bytes()), Some(size));
    }
    assert_eq!(Size::from_bytes(3), None);
    assert_eq!(R10.to_string(), "r10");
}

/// Runs the program in an interpreter that is not ours.
fn run(program: &[Item]) -> u64 {
    let bytes = assemble(program).unwrap().to_bytes();
    rbpf::EbpfVmNoData::new(Some(&bytes)).unwrap().execute_program().unwrap()
}

#[test]
fn a_loop_runs_as_written() {
    let (top, done) = (Label(0), Label(1));
    // 10 factorial.
    let program = [
        Insn::mov_imm(W64, R0, 1).into(),
        Insn::mov_imm(W64, R1, 10).into(),
        Item::Bind(top),
        Insn::jump_if_imm(Cond::Le, W64, R1, 1, done).into(),
        Insn::alu(AluOp::Mul, W64, R0, R1).into(),
        Insn::alu_imm(AluOp::Sub, W64, R1, 1).into(),
        Insn::jump(top).into(),
        Item::Bind(done),
        Insn::exit().into(),
    ];
    assert_eq!(run(&program), 3_628_800);
}

#[test]
fn memory_and_wide_immediates_run_as_written() {
    let program = items(&[
        Insn::load_imm64(R1, 0x1122_3344_5566_7788),
        Insn::store(B8, R10, -8, R1),
        Insn::store_imm(B1, R10, -8, -1),
        Insn::load(B4, R0, R10, -8),
        Insn::load(B1, R2, R10, -1),
        Insn::alu_imm(AluOp::Lsh, W64, R2, 32),
        Insn::alu(AluOp::Or, W64, R0, R2),
        Insn::exit(),
    ]);
    assert_eq!(run(&program), 0x11_5566_77ff);
}

#[test]
fn widths_and_signs_run_as_written() {
    let shifted =
        |op, width| run(&items(&[Insn::mov_imm(W64, R0, -16), Insn::alu_imm(op, width, R0, 2), Insn::exit()]));
    assert_eq!(shifted(AluOp::Arsh, W64), -4_i64 as u64);
    assert_eq!(shifted(AluOp::Rsh, W64), 0x3fff_ffff_ffff_fffc);
    assert_eq!(shifted(AluOp::Rsh, W32), 0x3fff_fffc);
    assert_eq!(run(&items(&[Insn::mov_imm(W64, R0, 0x1234), Insn::to_be(R0, 16), Insn::exit()])), 0x3412);
    let compare = |cond| {
        run(&[
            Insn::mov_imm(W64, R0, 1).into(),
            Insn::mov_imm(W64, R1, -1).into(),
            Insn::jump_if_imm(cond, W64, R1, 0, L).into(),
            Insn::mov_imm(W64, R0, 0).into(),
            Item::Bind(L),
            Insn::exit().into(),
        ])
    };
    assert_eq!((compare(Cond::Gt), compare(Cond::Sgt), compare(Cond::Slt), compare(Cond::Set)), (1, 0, 1, 0));
}
