; The thread pool and the program runner: a whole program is one call of @run. Compiled like a kernel; see threads.py for the layouts.
;
; One kernel is in flight at a time. Its chunks are handed out by the ticket word: generation << 32 | high << 16 | low, where the chunks
; low .. high-1 are unclaimed. The caller and the even workers claim from the low end, odd workers from the high end, so that with two
; threads each keeps to its half of the memory from kernel to kernel. A claim is a compare-and-swap of the whole word: it can only succeed
; while the job that the claimer has read is still the current one, because a job is replaced only when no chunk of it is unclaimed.
; Nobody waits for a thread that has claimed nothing: what a sleeping worker does not take, the caller runs.

; offsets in the pool, bytes
;   0 ticket | 64 done | 128 function, 136 which, 144 trips, 152 chunk, 160 slots, 168 status
; 192 parked, 200 quit, 208 spin nanoseconds | 256 scratch, 264 scratch stride | 320 mutex, 328 cond
; 336 pthread_mutex_lock, 344 pthread_mutex_unlock, 352 pthread_cond_wait, 360 pthread_cond_broadcast, 368 clock_gettime, 376 sched_yield
; 384 PyGILState_Ensure, 392 PyErr_CheckSignals, 400 PyErr_Fetch, 408 PyGILState_Release | 416 what a handler has raised: three words

define internal i64 @word(ptr %base, i64 %offset) nounwind {
  %p = getelementptr i8, ptr %base, i64 %offset
  %v = load i64, ptr %p, align 8
  ret i64 %v
}

define internal void @relax() nounwind {
  RELAX
  ret void
}

; nanoseconds of CLOCK_MONOTONIC (CLOCK)
define internal i64 @now(ptr %pool) nounwind {
  %time = alloca [2 x i64], align 8
  %f = call i64 @word(ptr %pool, i64 368)
  %clock_gettime = inttoptr i64 %f to ptr
  %ok = call i32 %clock_gettime(i32 CLOCK, ptr %time)
  %s = load i64, ptr %time, align 8
  %np = getelementptr i64, ptr %time, i64 1
  %n = load i64, ptr %np, align 8
  %ns = mul i64 %s, 1000000000
  %t = add i64 %ns, %n
  ret i64 %t
}

; Claims one chunk and runs it; false when none is left.
define internal i1 @work(ptr %pool, i64 %thread) nounwind {
entry:
  %jf = getelementptr i8, ptr %pool, i64 128
  %jw = getelementptr i8, ptr %pool, i64 136
  %jt = getelementptr i8, ptr %pool, i64 144
  %jc = getelementptr i8, ptr %pool, i64 152
  %js = getelementptr i8, ptr %pool, i64 160
  %jx = getelementptr i8, ptr %pool, i64 168
  %side = trunc i64 %thread to i1
  br label %try
try:
  %ticket = load atomic i64, ptr %pool acquire, align 64
  %low = and i64 %ticket, 65535
  %shifted = lshr i64 %ticket, 16
  %high = and i64 %shifted, 65535
  %some = icmp ult i64 %low, %high
  br i1 %some, label %claim, label %none
claim:
  %f = load atomic i64, ptr %jf monotonic, align 8
  %w = load atomic i64, ptr %jw monotonic, align 8
  %trips = load atomic i64, ptr %jt monotonic, align 8
  %chunk = load atomic i64, ptr %jc monotonic, align 8
  %s = load atomic i64, ptr %js monotonic, align 8
  %x = load atomic i64, ptr %jx monotonic, align 8
  %top = sub i64 %high, 1
  %mine = select i1 %side, i64 %top, i64 %low
  %step = select i1 %side, i64 -65536, i64 1
  %next = add i64 %ticket, %step
  %swap = cmpxchg ptr %pool, i64 %ticket, i64 %next acq_rel monotonic, align 64
  %won = extractvalue { i64, i1 } %swap, 1
  br i1 %won, label %go, label %try
go:
  %begin = mul i64 %mine, %chunk
  %full = add i64 %begin, %chunk
  %over = icmp ult i64 %trips, %full
  %end = select i1 %over, i64 %trips, i64 %full
  %base = call i64 @word(ptr %pool, i64 256)
  %stride = call i64 @word(ptr %pool, i64 264)
  %offset = mul i64 %thread, %stride
  %scratch = add i64 %base, %offset
  %fp = inttoptr i64 %f to ptr
  %wp = inttoptr i64 %w to ptr
  %sp = inttoptr i64 %s to ptr
  %xp = inttoptr i64 %x to ptr
  %mp = inttoptr i64 %scratch to ptr
  call void %fp(ptr %sp, ptr %wp, i64 %begin, i64 %end, ptr %mp, ptr %xp)
  %done = getelementptr i8, ptr %pool, i64 64
  %old = atomicrmw add ptr %done, i64 1 release, align 64
  ret i1 true
none:
  ret i1 false
}

; One worker: argument { pool, number }. Works, spins for a while, then sleeps until a job is published.
define ptr @worker(ptr %argument) nounwind {
entry:
  %a = call i64 @word(ptr %argument, i64 0)
  %pool = inttoptr i64 %a to ptr
  %number = call i64 @word(ptr %argument, i64 8)
  %quit = getelementptr i8, ptr %pool, i64 200
  %parked = getelementptr i8, ptr %pool, i64 192
  %m = call i64 @word(ptr %pool, i64 320)
  %mutex = inttoptr i64 %m to ptr
  %c = call i64 @word(ptr %pool, i64 328)
  %cond = inttoptr i64 %c to ptr
  %lf = call i64 @word(ptr %pool, i64 336)
  %lock = inttoptr i64 %lf to ptr
  %uf = call i64 @word(ptr %pool, i64 344)
  %unlock = inttoptr i64 %uf to ptr
  %wf = call i64 @word(ptr %pool, i64 352)
  %wait = inttoptr i64 %wf to ptr
  br label %busy
busy:
  %more = call i1 @work(ptr %pool, i64 %number)
  br i1 %more, label %busy, label %idle
idle:
  %limit = call i64 @word(ptr %pool, i64 208)
  %began = call i64 @now(ptr %pool)
  br label %spin
spin:
  %k = phi i64 [ 0, %idle ], [ %k1, %again ]
  %q = load atomic i64, ptr %quit monotonic, align 8
  %stop = icmp ne i64 %q, 0
  br i1 %stop, label %exit, label %look
look:
  %t = load atomic i64, ptr %pool monotonic, align 64
  %any = call i1 @unclaimed(i64 %t)
  br i1 %any, label %busy, label %rest
rest:
  call void @relax()
  %k1 = add i64 %k, 1
  %sixty = and i64 %k1, 63
  %time = icmp eq i64 %sixty, 0
  br i1 %time, label %ask, label %again
again:
  br label %spin
ask:
  %t1 = call i64 @now(ptr %pool)
  %spent = sub i64 %t1, %began
  %tired = icmp ugt i64 %spent, %limit
  br i1 %tired, label %park, label %again
park:
  %l = call i32 %lock(ptr %mutex)
  %p = atomicrmw add ptr %parked, i64 1 seq_cst, align 8
  %t2 = load atomic i64, ptr %pool seq_cst, align 64
  %any2 = call i1 @unclaimed(i64 %t2)
  %q2 = load atomic i64, ptr %quit seq_cst, align 8
  %stop2 = icmp ne i64 %q2, 0
  %stay = or i1 %any2, %stop2
  br i1 %stay, label %woken, label %sleep
sleep:
  %w = call i32 %wait(ptr %cond, ptr %mutex)
  br label %woken
woken:
  %u = call i32 %unlock(ptr %mutex)
  br label %busy
exit:
  ret ptr null
}

define internal i1 @unclaimed(i64 %ticket) nounwind {
  %low = and i64 %ticket, 65535
  %shifted = lshr i64 %ticket, 16
  %high = and i64 %shifted, 65535
  %some = icmp ult i64 %low, %high
  ret i1 %some
}

define void @wake(ptr %pool) nounwind {
  %m = call i64 @word(ptr %pool, i64 320)
  %mutex = inttoptr i64 %m to ptr
  %c = call i64 @word(ptr %pool, i64 328)
  %cond = inttoptr i64 %c to ptr
  %lf = call i64 @word(ptr %pool, i64 336)
  %lock = inttoptr i64 %lf to ptr
  %uf = call i64 @word(ptr %pool, i64 344)
  %unlock = inttoptr i64 %uf to ptr
  %bf = call i64 @word(ptr %pool, i64 360)
  %broadcast = inttoptr i64 %bf to ptr
  %l = call i32 %lock(ptr %mutex)
  %b = call i32 %broadcast(ptr %cond)
  %u = call i32 %unlock(ptr %mutex)
  ret void
}

; Runs one step on all threads and returns when every chunk is done.
define internal void @share(ptr %pool, ptr %step, ptr %slots, ptr %status) nounwind {
entry:
  %f = call i64 @word(ptr %step, i64 0)
  %w = call i64 @word(ptr %step, i64 8)
  %trips = call i64 @word(ptr %step, i64 16)
  %chunk = call i64 @word(ptr %step, i64 24)
  %count = call i64 @word(ptr %step, i64 32)
  %s = ptrtoint ptr %slots to i64
  %x = ptrtoint ptr %status to i64
  %jf = getelementptr i8, ptr %pool, i64 128
  %jw = getelementptr i8, ptr %pool, i64 136
  %jt = getelementptr i8, ptr %pool, i64 144
  %jc = getelementptr i8, ptr %pool, i64 152
  %js = getelementptr i8, ptr %pool, i64 160
  %jx = getelementptr i8, ptr %pool, i64 168
  store atomic i64 %f, ptr %jf monotonic, align 8
  store atomic i64 %w, ptr %jw monotonic, align 8
  store atomic i64 %trips, ptr %jt monotonic, align 8
  store atomic i64 %chunk, ptr %jc monotonic, align 8
  store atomic i64 %s, ptr %js monotonic, align 8
  store atomic i64 %x, ptr %jx monotonic, align 8
  %done = getelementptr i8, ptr %pool, i64 64
  store atomic i64 0, ptr %done monotonic, align 64
  %old = load atomic i64, ptr %pool monotonic, align 64
  %generation = lshr i64 %old, 32
  %next = add i64 %generation, 1
  %g = shl i64 %next, 32
  %h = shl i64 %count, 16
  %ticket = or i64 %g, %h
  store atomic i64 %ticket, ptr %pool seq_cst, align 64
  %parked = getelementptr i8, ptr %pool, i64 192
  %asleep = load atomic i64, ptr %parked seq_cst, align 8
  %any = icmp ne i64 %asleep, 0
  br i1 %any, label %rouse, label %busy
rouse:
  %took = atomicrmw xchg ptr %parked, i64 0 seq_cst, align 8
  call void @wake(ptr %pool)
  br label %busy
busy:
  %more = call i1 @work(ptr %pool, i64 0)
  br i1 %more, label %busy, label %finish
finish:
  %k = phi i64 [ 0, %busy ], [ %k1, %relax ], [ %k1, %yield ]
  %d = load atomic i64, ptr %done acquire, align 64
  %all = icmp eq i64 %d, %count
  br i1 %all, label %exit, label %wait
wait:
  %k1 = add i64 %k, 1
  %low = and i64 %k1, 1023
  %long = icmp eq i64 %low, 0
  br i1 %long, label %yield, label %relax
relax:
  call void @relax()
  br label %finish
yield: ; the worker may be off its core: let it in
  %yf = call i64 @word(ptr %pool, i64 376)
  %sched_yield = inttoptr i64 %yf to ptr
  %y = call i32 %sched_yield()
  br label %finish
exit:
  ret void
}

; Whether a signal handler of Python wants to interrupt: what it has raised (KeyboardInterrupt) is kept for the caller.
define internal i1 @interrupted(ptr %pool) nounwind {
entry:
  %ef = call i64 @word(ptr %pool, i64 384)
  %ensure = inttoptr i64 %ef to ptr
  %cf = call i64 @word(ptr %pool, i64 392)
  %check = inttoptr i64 %cf to ptr
  %kf = call i64 @word(ptr %pool, i64 400)
  %fetch = inttoptr i64 %kf to ptr
  %rf = call i64 @word(ptr %pool, i64 408)
  %release = inttoptr i64 %rf to ptr
  %state = call i32 %ensure()
  %r = call i32 %check()
  %hit = icmp ne i32 %r, 0
  br i1 %hit, label %keep, label %exit
keep:
  %type = getelementptr i8, ptr %pool, i64 416
  %value = getelementptr i8, ptr %pool, i64 424
  %trace = getelementptr i8, ptr %pool, i64 432
  call void %fetch(ptr %type, ptr %value, ptr %trace)
  br label %exit
exit:
  call void %release(i32 %state)
  ret i1 %hit
}

; offsets in the block, bytes
; 0 steps, 8 count, 16 slots, 24 clocks (nanoseconds, count + 1; or null), 32 first step that writes in place, 40 status (0, or number of the
; failed check), 48 failed step, 56 pool, 64 cancel
; offsets in a step: 0 function, 8 which, 16 trips, 24 chunk (0: on this thread), 32 count of chunks; a step has 64 bytes
; returns 0, 1 (a check failed) or 2 (cancelled before the first write in place)
define i64 @run(ptr %block) nounwind {
entry:
  %a0 = call i64 @word(ptr %block, i64 0)
  %steps = inttoptr i64 %a0 to ptr
  %count = call i64 @word(ptr %block, i64 8)
  %a2 = call i64 @word(ptr %block, i64 16)
  %slots = inttoptr i64 %a2 to ptr
  %a3 = call i64 @word(ptr %block, i64 24)
  %clocks = inttoptr i64 %a3 to ptr
  %timed = icmp ne i64 %a3, 0
  %first = call i64 @word(ptr %block, i64 32)
  %a7 = call i64 @word(ptr %block, i64 56)
  %pool = inttoptr i64 %a7 to ptr
  %status = getelementptr i8, ptr %block, i64 40
  %failed = getelementptr i8, ptr %block, i64 48
  %cancel = getelementptr i8, ptr %block, i64 64
  store i64 0, ptr %status, align 8
  store i64 -1, ptr %failed, align 8
  %scratch0 = call i64 @word(ptr %pool, i64 256)
  %scratch = inttoptr i64 %scratch0 to ptr
  %several = icmp ugt i64 %count, 1
  br i1 %several, label %begin, label %loop
begin:
  %b = call i64 @now(ptr %pool)
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ 0, %begin ], [ %i1, %next ]
  %began = phi i64 [ 0, %entry ], [ %b, %begin ], [ %asked, %next ]
  %rest = icmp ult i64 %i, %count
  br i1 %rest, label %step, label %end
step:
  br i1 %timed, label %stamp, label %ready
stamp:
  %ts = call i64 @now(ptr %pool)
  %cp = getelementptr i64, ptr %clocks, i64 %i
  store i64 %ts, ptr %cp, align 8
  br label %ready
ready:
  %offset = mul i64 %i, 64
  %sp = getelementptr i8, ptr %steps, i64 %offset
  %gate = icmp ule i64 %i, %first
  br i1 %gate, label %guard, label %launch
guard:
  %st = load atomic i64, ptr %status monotonic, align 8
  %bad = icmp ne i64 %st, 0
  br i1 %bad, label %end, label %flag
flag:
  %cv = load atomic i64, ptr %cancel monotonic, align 8
  %cut = icmp ne i64 %cv, 0
  %early = icmp eq i64 %i, 0
  %sure = or i1 %cut, %early
  br i1 %sure, label %settle, label %age
settle:
  br i1 %cut, label %cancelled, label %launch
age:
  %gt = call i64 @now(ptr %pool)
  %spent = sub i64 %gt, %began
  %written = icmp eq i64 %i, %first
  %patience = select i1 %written, i64 1000000, i64 50000000
  %old = icmp ugt i64 %spent, %patience
  br i1 %old, label %ask, label %launch
ask: ; a millisecond before the first write, else every twentieth of a second: it takes the interpreter's lock
  %hit = call i1 @interrupted(ptr %pool)
  br i1 %hit, label %cancelled, label %launch
launch:
  %asked = phi i64 [ %began, %ready ], [ %began, %settle ], [ %began, %age ], [ %gt, %ask ]
  %chunk = call i64 @word(ptr %sp, i64 24)
  %alone = icmp eq i64 %chunk, 0
  br i1 %alone, label %here, label %everywhere
here:
  %hf = call i64 @word(ptr %sp, i64 0)
  %hw = call i64 @word(ptr %sp, i64 8)
  %ht = call i64 @word(ptr %sp, i64 16)
  %f = inttoptr i64 %hf to ptr
  %w = inttoptr i64 %hw to ptr
  call void %f(ptr %slots, ptr %w, i64 0, i64 %ht, ptr %scratch, ptr %status)
  br label %check
everywhere:
  call void @share(ptr %pool, ptr %sp, ptr %slots, ptr %status)
  br label %check
check:
  %code = load atomic i64, ptr %status monotonic, align 8
  %fine = icmp eq i64 %code, 0
  br i1 %fine, label %next, label %record
record:
  %known = load i64, ptr %failed, align 8
  %none = icmp eq i64 %known, -1
  %which = select i1 %none, i64 %i, i64 %known
  store i64 %which, ptr %failed, align 8
  br label %next
next:
  %i1 = add i64 %i, 1
  br label %loop
end:
  br i1 %timed, label %last, label %finish
last:
  %tl = call i64 @now(ptr %pool)
  %lp = getelementptr i64, ptr %clocks, i64 %count
  store i64 %tl, ptr %lp, align 8
  br label %finish
finish:
  %final = load atomic i64, ptr %status monotonic, align 8
  %wrong = icmp ne i64 %final, 0
  %result = zext i1 %wrong to i64
  ret i64 %result
cancelled:
  ret i64 2
}
