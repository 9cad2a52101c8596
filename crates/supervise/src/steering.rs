//! The program by which the kernel spreads new connections over the shards of an address.
//!
//! It draws a random number per connection and not the packet's flow hash (`SKF_AD_RXHASH`): network cards without
//! receive hashing leave that at zero, which would send everything to one slot. A repeated SYN does not suffer from a second draw: the
//! first one left a request socket that is found before any listener is looked for, and cookies are checked group-wide.

use nix::libc::{
    BPF_ABS, BPF_ALU, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET, BPF_W, SKF_AD_OFF, SKF_AD_RANDOM, sock_filter,
};

/// `BPF_RET` of the accumulator; the C library's bindings lack the constant.
const BPF_A: u32 = 0x10;

/// A program that answers each new connection with one of `slots`, all equally likely.
///
/// # Panics
///
/// If there are no slots.
pub(crate) fn program(slots: &[u32]) -> Vec<sock_filter> {
    let (&last, others) = slots.split_last().expect("somebody is always named");
    let mut program = vec![
        instruction(BPF_LD | BPF_W | BPF_ABS, (SKF_AD_OFF + SKF_AD_RANDOM) as u32),
        instruction(BPF_ALU | BPF_MOD | BPF_K, slots.len() as u32),
    ];
    if (0..).zip(slots).all(|(position, &slot)| position == slot) {
        program.push(instruction(BPF_RET | BPF_A, 0));
        return program;
    }
    for (position, &slot) in (0..).zip(others) {
        program.push(sock_filter { jf: 1, ..instruction(BPF_JMP | BPF_JEQ | BPF_K, position) });
        program.push(instruction(BPF_RET | BPF_K, slot));
    }
    program.push(instruction(BPF_RET | BPF_K, last));
    program
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, with `random` for the random number.
    fn run(program: &[sock_filter], random: u32) -> u32 {
        let mut accumulator = random;
        let mut next = 1;
        loop {
            let sock_filter { code, jf, k, .. } = program[next];
            next += 1;
            match u32::from(code) {
                code if code == BPF_ALU | BPF_MOD | BPF_K => accumulator %= k,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => next += if accumulator == k { 0 } else { jf as usize },
                code if code == BPF_RET | BPF_K => return k,
                code if code == BPF_RET | BPF_A => return accumulator,
                code => panic!("unexpected instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn each_named_slot_and_no_other_is_answered() {
        for slots in [vec![0], vec![3], vec![0, 1, 2, 3], vec![1, 2], vec![0, 2, 5], (7..300).collect()] {
            let program = program(&slots);
            let answers: Vec<u32> = (0..slots.len() as u32).map(|random| run(&program, random)).collect();
            assert_eq!(answers, slots);
        }
    }
}
