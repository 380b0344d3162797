//! The process that holds a shared PID namespace: it ignores its children's ends, so that the kernel collects them, and
//! waits. It is a program of some two hundred bytes, made here, so that no image is needed for it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the program is loaded; any page-aligned address will do.
const BASE: u64 = 0x0040_0000;
const HEADERS: usize = 64 + 56;
const SIGCHLD: u8 = 17;

/// `rt_sigaction(SIGCHLD, {SIG_IGN, …}, NULL, 8)`, then `pause()` for ever. SIGTERM has no handler, which the first
/// process of a namespace never notices; SIGKILL from outside ends it.
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0x48, 0x83, 0xec, 0x20, // sub rsp, 32
    0x48, 0xc7, 0x04, 0x24, 1, 0, 0, 0, // mov qword [rsp], SIG_IGN
    0x48, 0xc7, 0x44, 0x24, 8, 0, 0, 0, 0, // mov qword [rsp+8], 0   (flags)
    0x48, 0xc7, 0x44, 0x24, 16, 0, 0, 0, 0, // mov qword [rsp+16], 0 (restorer)
    0x48, 0xc7, 0x44, 0x24, 24, 0, 0, 0, 0, // mov qword [rsp+24], 0 (mask)
    0xb8, 13, 0, 0, 0, // mov eax, rt_sigaction
    0xbf, SIGCHLD, 0, 0, 0, // mov edi, SIGCHLD
    0x48, 0x89, 0xe6, // mov rsi, rsp
    0x31, 0xd2, // xor edx, edx
    0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8
    0x0f, 0x05, // syscall
    0xb8, 34, 0, 0, 0, // mov eax, pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the move before
];

/// The same; there is no `pause` here, so `ppoll(NULL, 0, NULL, NULL, 0)`.
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0xff, 0x83, 0x00, 0xd1, // sub sp, sp, #32
    0x21, 0x00, 0x80, 0xd2, // mov x1, #1 (SIG_IGN)
    0xe1, 0x7f, 0x00, 0xa9, // stp x1, xzr, [sp]
    0xff, 0x7f, 0x01, 0xa9, // stp xzr, xzr, [sp, #16]
    0x20, 0x02, 0x80, 0xd2, // mov x0, #17
    0xe1, 0x03, 0x00, 0x91, // mov x1, sp
    0x02, 0x00, 0x80, 0xd2, // mov x2, #0
    0x03, 0x01, 0x80, 0xd2, // mov x3, #8
    0xc8, 0x10, 0x80, 0xd2, // mov x8, #134 (rt_sigaction)
    0x01, 0x00, 0x00, 0xd4, // svc #0
    0x00, 0x00, 0x80, 0xd2, // mov x0, #0
    0x01, 0x00, 0x80, 0xd2, // mov x1, #0
    0x02, 0x00, 0x80, 0xd2, // mov x2, #0
    0x03, 0x00, 0x80, 0xd2, // mov x3, #0
    0x04, 0x00, 0x80, 0xd2, // mov x4, #0
    0x28, 0x09, 0x80, 0xd2, // mov x8, #73 (ppoll)
    0x01, 0x00, 0x00, 0xd4, // svc #0
    0xf9, 0xff, 0xff, 0x17, // b to "mov x0, #0"
];

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// A static 64-bit little-endian ELF executable: header, one loadable segment, code.
fn program() -> Vec<u8> {
    let size = (HEADERS + CODE.len()) as u64;
    let mut elf = Vec::with_capacity(HEADERS + CODE.len());
    elf.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let half = |elf: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| elf.extend_from_slice(&v.to_le_bytes()));
    let word = |elf: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| elf.extend_from_slice(&v.to_le_bytes()));
    let long = |elf: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| elf.extend_from_slice(&v.to_le_bytes()));
    half(&mut elf, &[2, MACHINE]);
    word(&mut elf, &[1]);
    long(&mut elf, &[BASE + HEADERS as u64, 64, 0]);
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 1, 0, 0, 0]);
    word(&mut elf, &[1, 5]);
    long(&mut elf, &[0, BASE, BASE, size, size, 0x1000]);
    elf.extend_from_slice(CODE);
    elf
}

/// Writes the program into a root file system of its own, once, and answers that.
pub(super) fn root_file_system(dir: &Path) -> io::Result<PathBuf> {
    let root = dir.join("pause");
    let file = root.join("pause");
    if fs::read(&file).is_ok_and(|bytes| bytes == program()) {
        return Ok(root);
    }
    for mount_point in ["proc", "dev", "sys"] {
        fs::create_dir_all(root.join(mount_point))?;
    }
    let fresh = root.join(format!(".pause-{}", uuid::Uuid::new_v4().simple()));
    fs::write(&fresh, program())?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o555))?;
    fs::rename(fresh, file)?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn the_program_runs_until_it_is_told_to_end() {
        let dir = tempfile::tempdir().expect("dir");
        let root = root_file_system(dir.path()).expect("write");
        let mut child = Command::new(root.join("pause")).spawn().expect("spawn");
        let status = format!("/proc/{}/status", child.id());
        // Only a program that was accepted gets as far as ignoring the ends of children (bit 17 of the mask).
        let mask = |text: String| {
            let hex = text.lines().find_map(|l| l.strip_prefix("SigIgn:"))?.trim().to_owned();
            u64::from_str_radix(&hex, 16).ok()
        };
        let ignores = || fs::read_to_string(&status).ok().and_then(mask).is_some_and(|m| m & (1 << 16) != 0);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !ignores() {
            assert!(child.try_wait().expect("wait").is_none(), "it ended");
            assert!(std::time::Instant::now() < end, "it does not ignore the ends of children");
            std::thread::yield_now();
        }
        child.kill().expect("kill");
        assert_eq!(child.wait().expect("wait").signal(), Some(Signal::SIGKILL as i32));
    }
}
