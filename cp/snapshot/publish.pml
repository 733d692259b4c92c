/* The publish/acknowledge protocol of dp/abi/control.h as cp/snapshot/publish.cc and dp/worker/snapshot_reader.cc speak it.
 * Checked by tests/sim/test_publish_model.py, that is: spin -a publish.pml && cc -DSAFETY -o pan pan.c && ./pan -m200000
 *
 * Two lb-cp, of which lb-dp serves one at a time; either may die and come back at any step (a new epoch each time), and so may
 * a worker's move be delayed for any time. A generation is one number here: epoch * STEP + n, so that they compare as
 * (epoch, n) does. What must hold:
 *   1. generations in force at lb-dp rise and never fall: an lb-cp of an older epoch cannot publish any more;
 *   2. no worker forwards by a generation that lb-dp has released;
 *   3. at most two generations are alive at lb-dp;
 *   4. an lb-cp believes only that active which lb-dp's workers have all taken up.
 */
#define WORKERS 2
#define STEP 4          /* generations in an epoch */
#define MAX_EPOCH 3
#define NOBODY 2

mtype = { publish, verdict, all_moved, hello };

chan to_dp[2] = [2] of { mtype, byte };
chan to_cp[2] = [3] of { mtype, byte };

byte client = NOBODY;      /* the lb-cp that is connected */
byte in_force = 0;         /* current generation; 0: none */
byte previous = 0;         /* the one that workers may still use; 0: released */
bool moving = false;
byte worker_at[WORKERS];   /* what each worker forwards by; 0: nothing yet */
bool alive[2];

/* Whether every worker forwards by in_force. */
#define SETTLED (worker_at[0] == in_force && worker_at[1] == in_force)
#define HELD(g) (g == 0 || g == in_force || (moving && g == previous))

inline drain_channels(who) {
  do
  :: nempty(to_dp[who]) -> to_dp[who]?_, _
  :: nempty(to_cp[who]) -> to_cp[who]?_, _
  :: empty(to_dp[who]) && empty(to_cp[who]) -> break
  od
}

active proctype lb_dp() {
  byte g, who;
  do
  /* A connection: one at a time, the second is told busy (it finds client taken and tries again). */
  :: atomic { client == NOBODY && (alive[0] || alive[1]) ->
       if
       :: alive[0] -> who = 0
       :: alive[1] -> who = 1
       fi;
       drain_channels(who);
       client = who;
       to_cp[who]!hello, in_force }
  /* It has gone. */
  :: atomic { client != NOBODY && !alive[client] -> drain_channels(client); client = NOBODY }
  /* A publication is read only while none moves. */
  :: atomic { client != NOBODY && !moving && nempty(to_dp[client]) ->
       who = client;
       to_dp[who]?publish, g;
       if
       :: g > in_force ->
            assert(!moving && previous == 0);          /* 3 */
            previous = in_force; in_force = g; moving = true;
            if :: nfull(to_cp[who]) -> to_cp[who]!verdict, g :: full(to_cp[who]) fi
       :: g <= in_force ->                             /* stale: refused by name */
            if :: nfull(to_cp[who]) -> to_cp[who]!verdict, 0 :: full(to_cp[who]) fi
       fi }
  /* All have moved: the old one is released. */
  :: atomic { moving && SETTLED ->
       previous = 0; moving = false;
       if
       :: client != NOBODY ->
            if :: nfull(to_cp[client]) -> to_cp[client]!all_moved, in_force :: full(to_cp[client]) fi
       :: client == NOBODY
       fi }
  od
}

active [WORKERS] proctype worker() {
  byte me = _pid - 1;  /* lb_dp is process 0 */
  do
  :: atomic { worker_at[me] != in_force ->
       assert(in_force > worker_at[me]);               /* 1 */
       worker_at[me] = in_force }
  :: atomic { assert(HELD(worker_at[me])) ; in_force != 0 -> skip }  /* 2: it looks at what it holds, between any two steps */
  od
}

proctype lb_cp(byte me) {
  byte epoch = 0, n, floor, g;
  bool in_flight, connected;
start:
  atomic { alive[me] = true; connected = false; in_flight = false; n = 0 }
  do
  :: atomic { to_cp[me]?hello, floor ->
       connected = true;
       /* The next epoch above what lb-dp has; bounded, so that the model is. */
       if
       :: epoch <= floor / STEP -> epoch = floor / STEP + 1; n = 0
       :: else
       fi }
  :: atomic { connected && !in_flight && epoch <= MAX_EPOCH && n < STEP - 1 && nfull(to_dp[me]) && client == me ->
       n++; in_flight = true; to_dp[me]!publish, epoch * STEP + n }
  :: atomic { to_cp[me]?verdict, g -> if :: g == 0 -> in_flight = false :: else fi }
  :: atomic { to_cp[me]?all_moved, g ->
       assert(g <= in_force);
       assert(worker_at[0] >= g && worker_at[1] >= g);  /* 4 */
       if :: g == epoch * STEP + n -> in_flight = false :: else fi }
  :: atomic { connected && client != me -> goto dead }  /* turned away: tries again */
  :: goto dead                                          /* killed, at any step */
  od;
dead:
  atomic { alive[me] = false; (client != me) -> goto start }
}

init {
  atomic { run lb_cp(0); run lb_cp(1) }
}
