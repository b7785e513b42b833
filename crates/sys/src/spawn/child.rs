//! The child between `fork` and `exec`: a plan laid out by the parent, performed without allocating.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use super::{PASSED_FDS_MAX, Spawn, Step};

/// Size of the report of a failure: the step's number, then `errno`.
pub(super) const REPORT_BYTES: usize = 5;

/// Exit code of a child that could not become its program, as shells use it.
const EXIT_NOT_STARTED: i32 = 127;

/// Where the digits of the pid begin in `Plan::listen_pid`.
const LISTEN_PID: &[u8] = b"LISTEN_PID=";

/// Without `close_range`, descriptors up to this number are marked one by one.
const MARKED_BY_HAND_MAX: RawFd = 65_536;

/// Everything the child needs, with every pointer it will hand to the kernel.
pub(super) struct Plan<'a> {
    program: &'a CStr,
    args: Vec<*const c_char>,
    env: Vec<*const c_char>,
    /// `LISTEN_PID=` and room for the digits; the child writes them.
    listen_pid: Option<[u8; 32]>,
    /// Source, then copy above all targets, then target.
    fds: Vec<(RawFd, RawFd, RawFd)>,
    /// First number above all targets.
    scratch: RawFd,
    dir: Option<&'a CStr>,
    umask: Option<u32>,
    credentials: Option<&'a super::Credentials>,
    parent_death_signal: Option<libc::c_int>,
    session: bool,
    parent: libc::pid_t,
    report: RawFd,
}

/// What the process between two forks needs, so that the second child is nobody's.
#[derive(Clone, Copy)]
pub(super) struct Between {
    /// Takes the second child's pid, or the negative `errno`.
    pub(super) name: RawFd,
    /// Ends when the pid was taken in.
    pub(super) hold: RawFd,
    /// The other end of `hold`, which is the parent's alone.
    pub(super) release: RawFd,
}

impl<'a> Plan<'a> {
    pub(super) fn new(spawn: &'a Spawn<'_>) -> io::Result<Plan<'a>> {
        if spawn.fds.len() > PASSED_FDS_MAX {
            return Err(invalid("too many descriptors to pass"));
        }
        let mut targets: Vec<RawFd> = spawn.fds.iter().map(|&(_, target)| target).collect();
        targets.sort_unstable();
        if targets.first().is_some_and(|&lowest| lowest < 0) {
            return Err(invalid("negative descriptor number"));
        }
        if targets.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(invalid("descriptor number used twice"));
        }
        let highest = targets.last().copied().unwrap_or(0).max(libc::STDERR_FILENO);
        let mut env = pointers(&spawn.env);
        if spawn.listen_pid {
            // The child points this slot at the text it has formatted.
            env.insert(0, ptr::null());
        }
        let mut listen_pid = [0; 32];
        listen_pid[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
        Ok(Plan {
            program: &spawn.program,
            args: pointers(&spawn.args),
            env,
            listen_pid: spawn.listen_pid.then_some(listen_pid),
            fds: spawn.fds.iter().map(|&(fd, target)| (fd.as_raw_fd(), -1, target)).collect(),
            scratch: highest.saturating_add(1),
            dir: spawn.dir.as_deref(),
            umask: spawn.umask,
            credentials: spawn.credentials.as_ref(),
            parent_death_signal: spawn.parent_death_signal.map(|signal| signal as libc::c_int),
            session: spawn.session,
            parent: nix::unistd::getpid().as_raw(),
            report: -1,
        })
    }

    /// Names the pipe on which a failure is reported.
    pub(super) fn report_to(&mut self, report: RawFd) {
        self.report = report;
    }

    /// Becomes the program. Runs in the child of a fork, perhaps of a process with threads.
    pub(super) fn run(&mut self) -> ! {
        let step = self.try_run();
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0).to_ne_bytes();
        let report = [step as u8, errno[0], errno[1], errno[2], errno[3]];
        // SAFETY: `report` is valid for its length; should the parent be gone there is nobody to tell.
        unsafe { libc::write(self.report, report.as_ptr().cast(), report.len()) };
        // SAFETY: `_exit` runs no destructor and flushes nothing of the parent's.
        unsafe { libc::_exit(EXIT_NOT_STARTED) }
    }

    /// Forks once more; that child becomes the program. The process between ends once the parent knows its pid.
    pub(super) fn run_detached(&mut self, between: Between) -> ! {
        // SAFETY: no memory is touched; the number is this process's own copy of the parent's.
        unsafe { libc::close(between.release) };
        // Straight to the kernel: the library's `fork` runs handlers, which is not async-signal-safe.
        // SAFETY: without a stack or flags besides the signal it is a plain fork.
        let forked = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        if forked == 0 {
            self.run();
        }
        let said = match i32::try_from(forked) {
            Ok(pid) if pid > 0 => pid,
            _ => -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN),
        };
        let said = said.to_ne_bytes();
        // SAFETY: `said` is valid for its length.
        unsafe { libc::write(between.name, said.as_ptr().cast(), said.len()) };
        let mut nothing = [0_u8; 1];
        // Until then the pid is our own child's, dead or alive, and cannot be given to another process.
        // SAFETY: `nothing` is valid for its length.
        unsafe { libc::read(between.hold, nothing.as_mut_ptr().cast(), nothing.len()) };
        // SAFETY: `_exit` runs no destructor and flushes nothing of the parent's.
        unsafe { libc::_exit(0) }
    }

    /// Returns only on failure, with the step that failed; `errno` says why.
    fn try_run(&mut self) -> Step {
        reset_dispositions();
        // SAFETY: no memory is touched.
        if self.session && unsafe { libc::setsid() } < 0 {
            return Step::Session;
        }
        if let Some(mask) = self.umask {
            // SAFETY: no memory is touched; it cannot fail.
            unsafe { libc::umask(mask as libc::mode_t) };
        }
        if let Some(dir) = self.dir {
            // SAFETY: `dir` is a terminated string that outlives the call.
            if unsafe { libc::chdir(dir.as_ptr()) } < 0 {
                return Step::Directory;
            }
        }
        if self.move_descriptors().is_none() {
            return Step::Descriptors;
        }
        if let Some(failed) = self.change_user() {
            return failed;
        }
        // After the change of user, which clears it.
        if let Some(signal) = self.parent_death_signal {
            // SAFETY: an integer option; no memory is touched.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } < 0 {
                return Step::ParentDeath;
            }
            // The parent may have died before the line above: then no signal will ever come.
            // SAFETY: no memory is touched.
            if unsafe { libc::getppid() } != self.parent {
                return Step::ParentDeath;
            }
        }
        if let Some(text) = &mut self.listen_pid {
            // SAFETY: no memory is touched.
            let pid = unsafe { libc::getpid() };
            write_decimal(&mut text[LISTEN_PID.len()..], pid.unsigned_abs());
            self.env[0] = text.as_ptr().cast();
        }
        unblock_all();
        // SAFETY: program, lists and every string in them are terminated and outlive the call.
        unsafe { libc::execve(self.program.as_ptr(), self.args.as_ptr(), self.env.as_ptr()) };
        Step::Exec
    }

    /// Puts every passed descriptor at its number and marks all others close-on-exec. `None`: failed.
    fn move_descriptors(&mut self) -> Option<()> {
        // First above all targets, so that no source is overwritten before its turn.
        for (source, copy, _) in &mut self.fds {
            *copy = duplicate_above(*source, self.scratch)?;
        }
        self.report = duplicate_above(self.report, self.scratch)?;
        mark_close_on_exec();
        for &(_, copy, target) in &self.fds {
            // SAFETY: no memory is touched; `copy` is open and `dup2` leaves the result without close-on-exec.
            crate::retry(|| unsafe { libc::dup2(copy, target) }).ok()?;
        }
        Some(())
    }

    fn change_user(&self) -> Option<Step> {
        let who = self.credentials?;
        // SAFETY: the list is valid for its length.
        if unsafe { libc::setgroups(who.groups.len(), who.groups.as_ptr()) } < 0 {
            return Some(Step::Groups);
        }
        // SAFETY: no memory is touched.
        if unsafe { libc::setresgid(who.gid, who.gid, who.gid) } < 0 {
            return Some(Step::Group);
        }
        // SAFETY: no memory is touched.
        if unsafe { libc::setresuid(who.uid, who.uid, who.uid) } < 0 {
            return Some(Step::User);
        }
        None
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

fn duplicate_above(fd: RawFd, lowest: RawFd) -> Option<RawFd> {
    // SAFETY: no memory is touched; the result stays a bare number because this process is about to become another.
    crate::check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest) }).ok()
}

fn mark_close_on_exec() {
    // SAFETY: no memory is touched: flags of descriptors from 3 on are changed.
    let marked =
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 {
        return;
    }
    // A kernel before 5.11, or a container that hides the call.
    for number in 3..MARKED_BY_HAND_MAX {
        // SAFETY: no memory is touched; a number that is not open answers EBADF.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Size of the kernel's signal sets in bytes.
const KERNEL_SIGSET_BYTES: usize = 8;

fn reset_dispositions() {
    // Straight to the kernel: the C library refuses the two numbers that it keeps to itself, and an "ignored" that our
    // own parent left there would go on to our children. All zeroes mean SIG_DFL, no flags, an empty mask.
    let default = [0_u64; 4];
    let no_old = ptr::null_mut::<libc::c_void>();
    for number in 1..=64 {
        // KILL and STOP answer EINVAL.
        // SAFETY: the kernel reads one `sigaction`, for which there is room, and does not write the old one.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                no_old,
                KERNEL_SIGSET_BYTES,
            )
        };
    }
}

fn unblock_all() {
    // SAFETY: all-zero bytes are a valid, empty signal set.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` outlives the call; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
}

/// Writes `number` in decimal; the rest of `into` stays zero, which terminates it.
fn write_decimal(into: &mut [u8], number: u32) {
    let mut digits = [0_u8; 10];
    let mut left = number;
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    for (place, digit) in into.iter_mut().zip(&digits[first..]) {
        *place = *digit;
    }
}

#[cfg(test)]
mod tests {
    use super::write_decimal;

    #[test]
    fn decimals_end_where_they_should() {
        for (number, want) in
            [(0, &b"0\0"[..]), (7, b"7\0"), (4_194_304, b"4194304\0"), (u32::MAX, b"4294967295\0")]
        {
            let mut text = [0; 16];
            write_decimal(&mut text, number);
            assert_eq!(&text[..want.len()], want);
        }
    }
}
