//! Runs a filter as the kernel does, for tests.

use seccompiler::sock_filter;

/// `struct seccomp_data`.
pub(super) struct Data {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) arguments: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            // The arguments follow the instruction pointer, each with its lower half first.
            16..64 if offset.is_multiple_of(4) => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                (argument >> (8 * (offset % 8))) as u32
            }
            _ => panic!("a filter loads from {offset}"),
        }
    }
}

/// What `program` answers: `SECCOMP_RET_*` with its data.
pub(super) fn evaluate(program: &[sock_filter], data: &Data) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let instruction = &program[at];
        at += 1;
        let (class, k) = (u32::from(instruction.code) & 7, instruction.k);
        let rest = u32::from(instruction.code) & !7;
        match class {
            libc::BPF_LD if rest == libc::BPF_W | libc::BPF_ABS => accumulator = data.word(k),
            libc::BPF_ALU if rest == libc::BPF_AND | libc::BPF_K => accumulator &= k,
            libc::BPF_RET => return k,
            libc::BPF_JMP if rest == libc::BPF_JA => at += k as usize,
            libc::BPF_JMP => {
                let holds = match rest {
                    libc::BPF_JEQ => accumulator == k,
                    libc::BPF_JGT => accumulator > k,
                    libc::BPF_JGE => accumulator >= k,
                    libc::BPF_JSET => accumulator & k != 0,
                    _ => panic!("a jump of kind {rest:#x}"),
                };
                at += usize::from(if holds { instruction.jt } else { instruction.jf });
            }
            _ => panic!("an instruction of code {:#x}", instruction.code),
        }
    }
}
