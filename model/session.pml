/* The sleep/wake protocol of a session page, between clients and one server.
 *
 * What is modelled is src/l4re/_native/session.c and loop.c, step by step. Each
 * process writes through a FIFO store buffer that the World empties at leisure:
 * total store order, as on x86. A load sees the own buffer first; a fence waits
 * until the buffer is empty, and so does a compare-exchange. System calls are
 * NOT taken for fences.
 *
 * One transition (an `atomic`) holds at most one access to what others see: a
 * load, an exchange, a packet sent or received. Putting a store into the own
 * buffer is no such access, so it joins the transition before it; a fence joins
 * the load after it. Both are the same to every other process.
 *
 * Abstracted: what a message says (model/litmus covers the order of message and
 * state word); how long anybody spins (a spin is a look at an arbitrary moment);
 * the order of the hot list and of events (any order); batches (any size).
 *
 * Sizes, configurations and mutants are chosen with -D: see run.py. */

#ifndef CLIENTS
#define CLIENTS 2               /* each with a session of its own */
#endif
#ifndef CALLS
#define CALLS 2                 /* messages a client sends */
#endif
#ifndef OTHER_CALLS
#define OTHER_CALLS CALLS       /* messages the second one sends */
#endif
#ifndef HOT
#define HOT CLIENTS             /* room in the server's hot list */
#endif
#ifndef QUEUE
#define QUEUE 1                 /* packets a socket holds; more are refused */
#endif
#ifndef DEATHS
#define DEATHS 1                /* processes that may be killed, at any moment */
#endif
#define DEPTH 2                 /* stores a buffer holds */

/* ---- shared memory ---- */

#define FREE 0
#define POSTED 1
#define TAKEN 2
#define DONE 3
#define WORD(sequence, state) ((sequence) * 4 + (state))
#define STATE_OF(word) ((word) % 4)

#define STATE(c) (c)                            /* addresses */
#define SERVER_ASLEEP(c) (CLIENTS + (c))
#define CLIENT_ASLEEP(c) (2 * CLIENTS + (c))

#define SERVER CLIENTS                          /* a process number; clients are 0.. */

byte memory[3 * CLIENTS];

typedef Buffer { byte used; byte at[DEPTH]; byte to[DEPTH] };
Buffer buffer[CLIENTS + 1];

#define VALUE(p, a) ((buffer[p].used == 2 && buffer[p].at[1] == (a)) -> buffer[p].to[1] : \
                    ((buffer[p].used >= 1 && buffer[p].at[0] == (a)) -> buffer[p].to[0] : memory[a]))

inline store(p, a, v)
{
    buffer[p].used < DEPTH;
    buffer[p].at[buffer[p].used] = a;
    buffer[p].to[buffer[p].used] = v;
    buffer[p].used++
}

inline load(p, a, v) { v = VALUE(p, a) }

inline fence(p) { buffer[p].used == 0 }

inline exchange(p, a, old, new, ok)             /* compare-exchange, itself a fence */
{
    buffer[p].used == 0;
    ok = (memory[a] == old);
    memory[a] = (ok -> new : memory[a])
}

inline flush(p)                                 /* the oldest store reaches memory */
{
    memory[buffer[p].at[0]] = buffer[p].to[0];
    buffer[p].at[0] = buffer[p].at[1];
    buffer[p].to[0] = buffer[p].to[1];
    buffer[p].at[1] = 0;
    buffer[p].to[1] = 0;
    buffer[p].used--
}

/* ---- sockets ---- */

byte to_server[CLIENTS], to_client[CLIENTS];    /* packets queued: wake-ups ... */
byte ahead[CLIENTS];                            /* ... but this one, counted from 1, is descriptors; 0: none is */
bool client_end[CLIENTS];                       /* the client's end is closed, by itself or by its death */
bool server_end[CLIENTS];                       /* the server's end is */
bool parked[CLIENTS];                           /* the server waits for news only (edge-triggered) ... */
bool news[CLIENTS];                             /* ... and there is some */

inline ring_server(c)
{
    if
    :: to_server[c] < QUEUE && !server_end[c] -> to_server[c]++; news[c] = parked[c]
    :: else
    fi
}

inline ring_client(c) { to_client[c] = (to_client[c] < QUEUE && !client_end[c] -> to_client[c] + 1 : to_client[c]) }

inline close_client(c)
{
    client_end[c] = true;
    to_client[c] = 0;
    news[c] = parked[c]
}

inline close_server(c)
{
    server_end[c] = true;
    to_server[c] = 0;
    ahead[c] = 0;
    parked[c] = false;
    news[c] = false
}

inline pop(c)                                   /* the server reads a packet */
{
    to_server[c]--;
    inbox[c] = inbox[c] || ahead[c] == 1;
    ahead[c] = (ahead[c] -> ahead[c] - 1 : 0)
}

#define SERVER_READY(c) (!server_end[c] && (parked[c] -> news[c] : (to_server[c] > 0 || client_end[c])))
#ifdef M_NO_HUP                                 /* a forked child kept the server's end */
#define CLIENT_READY(c) (to_client[c] > 0)
#else
#define CLIENT_READY(c) (to_client[c] > 0 || server_end[c])
#endif

/* ---- what the checks need to know ---- */

bool dead[CLIENTS + 1];
byte deaths = DEATHS;                           /* still allowed */
bool one_way[CLIENTS];                          /* the message posted last: it wants no answer ... */
bool carries[CLIENTS];                          /* ... and has descriptors */
bool inbox[CLIENTS];                            /* descriptors the server has read, their request not yet taken */
bool finished[CLIENTS];
byte served[CLIENTS];                           /* the last sequence number the server took */
byte withdrawn[CLIENTS];                        /* the last one its client took back */

/* ---- the client: session.c ---- */

#define IS(word, state) (STATE_OF(word) == state)

inline receive(c)                               /* one packet, or the end */
{
    if
    :: to_client[c] > 0 -> to_client[c]--
    :: to_client[c] == 0 -> end = CLIENT_READY(c)
    fi
}

proctype Client(byte c)
{
    byte sequence, word, wanted;
    bool end, ok;
    {
        skip;
begin:  /* begin() */
        atomic {
            if
            :: sequence == (c -> OTHER_CALLS : CALLS) -> goto finish
            :: else
            fi;
            load(c, STATE(c), word);
            if
            :: IS(word, POSTED) || IS(word, TAKEN) ->   /* a one-way message before us */
                wanted = WORD(sequence, FREE);
                goto await
            :: else
            fi
        };

send:
        atomic {
            sequence++;
            wanted = WORD(sequence, DONE);
            if :: one_way[c] = true :: one_way[c] = false fi;
#ifdef DESCRIPTORS
            if :: carries[c] = true :: carries[c] = false fi;
            if                                  /* they go ahead on the socket */
            :: carries[c] && to_server[c] < QUEUE && !server_end[c] -> ring_server(c); ahead[c] = to_server[c]
            :: carries[c] && (to_server[c] == QUEUE || server_end[c]) -> end = true; goto finish
            :: !carries[c]
            fi;
#endif
            store(c, STATE(c), WORD(sequence, POSTED))
        };
        atomic {                                /* post() */
#ifndef M_POST_NO_FENCE
            fence(c);
#endif
            load(c, SERVER_ASLEEP(c), word)
        };
        atomic {
            if
            :: word -> ring_server(c)
            :: else
            fi;
            if
            :: one_way[c] -> goto begin
            :: else
            fi
        };

await:
        atomic {                                /* the look, or many, before we sleep */
            load(c, STATE(c), word);
            if
            :: word == wanted -> goto collect
            :: else
            fi
#ifdef ASYNC
            ; store(c, CLIENT_ASLEEP(c), 0)
#else
            ; store(c, CLIENT_ASLEEP(c), 1)
#endif
        };

#ifdef ASYNC                                    /* session_look(), whenever an outer event loop says readable */
look:
        atomic {
#ifndef M_ASYNC_DRAIN_LAST
            receive(c);
#endif
            store(c, CLIENT_ASLEEP(c), 1)
        };
        atomic {
            fence(c);
            load(c, STATE(c), word);
            if
            :: word == wanted -> goto collect
            :: else
            fi;
            if
            :: end -> goto gone
            :: else
            fi
        };
#ifdef M_ASYNC_DRAIN_LAST
        atomic { receive(c) };
#endif
blocked:
        atomic {
            if
            :: CLIENT_READY(c) -> store(c, CLIENT_ASLEEP(c), 0); goto look
            :: goto give_up                      /* its time is up */
            fi
        };
#else                                           /* await_state() */
sleep:
        atomic {
#ifndef M_CLIENT_NO_FENCE
            fence(c);
#endif
#ifndef M_CLIENT_NO_LOOK
            load(c, STATE(c), word);
            if
            :: word == wanted -> store(c, CLIENT_ASLEEP(c), 0); goto collect
            :: else
            fi;
#endif
            if
            :: end -> goto gone
            :: else
            fi
        };
blocked:
        atomic {                                /* recv or poll */
            if
            :: CLIENT_READY(c) -> receive(c)
            :: goto timed_out                    /* its time is up */
            fi;
            store(c, CLIENT_ASLEEP(c), 0);
            store(c, CLIENT_ASLEEP(c), 1);
            goto sleep
        };
timed_out:
        atomic {
            load(c, STATE(c), word);
            store(c, CLIENT_ASLEEP(c), 0);
            if
            :: word != wanted -> goto give_up
            :: else -> store(c, CLIENT_ASLEEP(c), 1); goto sleep
            fi
        };
#endif

collect:
        atomic {
            if
            :: IS(wanted, FREE) -> goto send
            :: else -> assert(served[c] == sequence); goto begin    /* the answer to this request */
            fi
        };

give_up:
        atomic {                                /* withdraw() */
            if
            :: IS(wanted, FREE) -> goto begin   /* nothing was posted yet; the caller may try again */
            :: else
            fi;
#ifdef M_WITHDRAW_STORES
            load(c, STATE(c), word);
            ok = (word == WORD(sequence, POSTED));
        };
        atomic {
            if
            :: ok -> store(c, STATE(c), WORD(sequence, FREE))
            :: else
            fi;
#else
            exchange(c, STATE(c), WORD(sequence, POSTED), WORD(sequence, FREE), ok);
#endif
            if
            :: ok && !carries[c] -> withdrawn[c] = sequence; goto begin
            :: ok && carries[c] -> withdrawn[c] = sequence; end = true; goto finish     /* they cannot be taken back */
            :: else
            fi
        };
        atomic {
            load(c, STATE(c), word);
            if
            :: word == wanted -> goto collect   /* it came after all */
            :: else -> end = true; goto finish    /* taken: the session is abandoned */
            fi
        };

gone:
        atomic {
            fence(c);
            assert(memory[STATE(c)] != wanted)  /* an answer that was given is not lost with its server */
        };

finish:
        atomic {
            finished[c] = true;
            if
            :: !end                             /* the session stays open */
            :: fence(c) -> close_client(c)
            fi
        }
    } unless { dead[c] }
}

/* ---- the server: loop.c ---- */

#define LAST (CLIENTS - 1)

#ifdef OUTER
bool wakeup;                                    /* the eventfd in the loop */
#define ANYTHING_READY (wakeup || SERVER_READY(0) || SERVER_READY(LAST))
#else
#define ANYTHING_READY (SERVER_READY(0) || SERVER_READY(LAST))
#endif

bool hot[CLIENTS];                              /* in the hot list */
#if CLIENTS == 1
#define HOT_COUNT hot[0]
#else
#define HOT_COUNT (hot[0] + hot[1])
#endif

inline note_event(c)
{
    event[c] = SERVER_READY(c);
    hup[c] = event[c] && client_end[c];
    news[c] = news[c] && !event[c]
}

inline fetch()                                  /* epoll_wait: what is ready, or a part of it */
{
    if
    :: note_event(0)
#if CLIENTS > 1
    :: note_event(1)
    :: note_event(0); note_event(1)
#endif
    fi
}

inline store_if_hot(c, flag)
{
    if
    :: hot[c] -> store(SERVER, SERVER_ASLEEP(c), flag)
    :: else
    fi
}

inline lower_flags()
{
    store_if_hot(0, 0)
#if CLIENTS > 1
    ; store_if_hot(1, 0)
#endif
}

inline look_if_hot(c)
{
    if
    :: hot[c] && !found -> load(SERVER, STATE(c), word); found = IS(word, POSTED)
    :: else
    fi
}

/* Raise every flag, fence, look once more. */
inline raise_flags()
{
    atomic {
        found = false;
        store_if_hot(0, 1)
#if CLIENTS > 1
        ; store_if_hot(1, 1)
#endif
    };
#ifndef M_SERVER_NO_FENCE
    fence(SERVER);
#endif
#ifndef M_SERVER_NO_LOOK
    atomic { look_if_hot(0) };
#if CLIENTS > 1
    atomic { look_if_hot(1) };
#endif
#endif
    skip
}

inline heat(c)
{
    if
#ifdef M_HEAT_FULL                              /* the flag of one that then has no room in the list */
    :: !hot[c] -> store(SERVER, SERVER_ASLEEP(c), 0); hot[c] = HOT_COUNT < HOT
#else
    :: !hot[c] && HOT_COUNT < HOT -> store(SERVER, SERVER_ASLEEP(c), 0); hot[c] = true
#endif
    :: else
    fi
}

/* Until a request shows, nothing is left, or the end. Descriptors whose request is not there stay in
 * the socket; those read beside a request that is withdrawn meanwhile wait in the inbox for theirs. */
inline drain(c)
{
    end = false;
    do
    :: atomic {
            load(SERVER, STATE(c), word);
            found = IS(word, POSTED)
        };
        atomic {                                /* a look at the packet in front */
            if
            :: !found && !over && ahead[c] == 1 -> goto park
            :: !found && !over && !to_server[c] && !client_end[c] -> break
            :: else
            fi
        };
        do                                      /* inbox_drain(): to a wake-up, or to the end of the queue */
        :: atomic {
                if
                :: ahead[c] == 1 -> pop(c)
                :: ahead[c] != 1 && to_server[c] -> pop(c); break
                :: !to_server[c] -> end = client_end[c]; found = true; break
                fi
            }
        od;
        if
        :: found -> break
        :: else
        fi
    od
}

inline note_taken(c)
{
    assert(word / 4 > served[c]);               /* nothing is served twice, nothing old */
    assert(word / 4 != withdrawn[c]);           /* nothing that was taken back */
    served[c] = word / 4;
    withdrawn[c] = 0                            /* whatever it was, it is older: one state less to tell apart */
}

inline claim(c)                                 /* its descriptors, and nobody else's, or the session is lost */
{
    do
    :: carries[c] && !inbox[c] -> assert(to_server[c]); pop(c)
    :: else -> break
    od;
    assert(inbox[c] == carries[c]);
    inbox[c] = false;
    carries[c] = false;
    parked[c] = false;
    news[c] = false
}

/* take(): word becomes 0 when there is nothing to serve. */
inline take(c)
{
    atomic {
        load(SERVER, STATE(c), word);
        word = (IS(word, POSTED) -> word : 0)
    };
    atomic {
        if
        :: word ->
#ifdef M_TAKE_STORES
            ok = true;
            store(SERVER, STATE(c), WORD(word / 4, TAKEN));
#else
            exchange(SERVER, STATE(c), word, WORD(word / 4, TAKEN), ok);
#endif
            if
            :: ok -> note_taken(c); claim(c)
            :: else -> word = 0                 /* withdrawn this instant */
            fi
        :: else
        fi
    }
}

proctype Server()
{
    byte s, word;
    bool event[CLIENTS], hup[CLIENTS], over, found, end, ok;
    {
        skip;
next:   /* what the last epoll_wait returned */
        atomic {
            if
            :: event[0] -> s = 0; event[0] = false; over = hup[0]; hup[0] = false
#if CLIENTS > 1
            :: event[1] -> s = 1; event[1] = false; over = hup[1]; hup[1] = false
#endif
            :: !event[0] && !event[LAST] -> goto scan
#ifdef OUTER
            :: goto sleep                       /* enough for one step() */
#endif
            fi;
            if
            :: server_end[s] -> goto next
            :: else
            fi
#if !defined(M_DRAIN_FIRST)                     /* handle() */
            ; heat(s)
#endif
        };
#if defined(M_DRAIN_LAST)
        take(s);
        if
        :: word -> goto serve
        :: else
        fi;
        drain(s);
        word = 0;
#else
        drain(s);
#if defined(M_DRAIN_FIRST)
        atomic { heat(s) };
#endif
#if defined(M_END_FIRST)
        if
        :: end -> goto ended
        :: else
        fi;
#endif
        take(s);
#endif
#ifdef M_INBOX_STRICT
        assert(word || !inbox[s] || client_end[s]);     /* what stands there is taken for a lie */
#endif
        if
        :: word -> goto serve
        :: !word && end -> goto ended
        :: else -> goto next
        fi;
ended:
        atomic {
            hot[s] = false;
            close_server(s);
            inbox[s] = false;
            assert(!IS(memory[STATE(s)], POSTED));      /* what a dead client asked for was seen first */
            goto next
        };
park:
        atomic {                                /* changing the watch reports what is there once more */
            news[s] = news[s] || !parked[s];
            parked[s] = true;
            goto next
        };

scan:   /* at hot pages, or at the descriptors, or enough of both */
        atomic {
            if
            :: hot[0] -> s = 0
#if CLIENTS > 1
            :: hot[1] -> s = 1
#endif
            :: hot[0] || hot[LAST] -> fetch(); goto next        /* the zero timeout every few rounds */
            :: goto sleep
            fi
        };
        take(s);
        if
        :: word -> goto serve
        :: else -> goto scan
        fi;

serve:  /* the handler; then source_reply(), or the end of take() for a one-way message */
        atomic {
            if
            :: one_way[s] -> store(SERVER, STATE(s), WORD(served[s], FREE))
            :: else -> store(SERVER, STATE(s), WORD(served[s], DONE))
            fi
        };
        atomic {
#ifndef M_REPLY_NO_FENCE
            fence(SERVER);
#endif
            load(SERVER, CLIENT_ASLEEP(s), word);
#ifdef M_ONE_WAY_NO_RING
            word = word && !one_way[s]
#endif
        };
        atomic {
            if
            :: word -> ring_client(s)
            :: else
            fi;
            goto next
        };

sleep:
#ifdef OUTER                                    /* step() returns: settle(), and an outer loop waits on fileno() */
#ifndef M_NO_SETTLE
        raise_flags();
        atomic {
            if
            :: found || event[0] || event[LAST] ->
                lower_flags()
#ifndef M_SETTLE_NO_RING
                ; wakeup = true
#endif
            :: else -> hot[0] = false; hot[LAST] = false
            fi
        };
#endif
end_asleep:
        atomic {
            ANYTHING_READY -> wakeup = false;
            if
            :: !event[0] && !event[LAST] -> fetch()
            :: else
            fi;
            goto next
        }
#else
        raise_flags();
        atomic {
            if
            :: found -> lower_flags(); goto next
            :: else -> hot[0] = false; hot[LAST] = false
            fi
        };
end_asleep:
        atomic { ANYTHING_READY -> fetch(); goto next }
#endif
    } unless { dead[SERVER] }
}

/* ---- the world ---- */

/* Death: stores already made reach memory, descriptors are closed, nothing else happens. */
inline kill(p)
{
    do
    :: buffer[p].used -> flush(p)
    :: else -> break
    od;
    dead[p] = true;
    deaths--
}

/* The bad end: everybody alive sleeps, nothing is under way, and yet somebody waits or a request lies
 * unseen. A timeout or a death may still rescue them; that must not be needed. (A server stuck
 * elsewhere than in its sleep would be an invalid end state, which spin finds by itself.) */
#define AT_REST(p, c) (dead[c] || finished[c] || (Client[p]@blocked && !CLIENT_READY(c)))
#define WAITS(p, c) (!dead[c] && !finished[c])
#define UNSEEN(c) (IS(memory[STATE(c)], POSTED) && !server_end[c])
#define SERVER_RESTS (dead[SERVER] || (Server[1]@end_asleep && !ANYTHING_READY))

#if CLIENTS == 1
#define LOST (!buffer[0].used && !buffer[SERVER].used && SERVER_RESTS && AT_REST(2, 0) && (WAITS(2, 0) || UNSEEN(0)))
#else
#define LOST (!buffer[0].used && !buffer[1].used && !buffer[SERVER].used && SERVER_RESTS && \
              AT_REST(2, 0) && AT_REST(3, 1) && (WAITS(2, 0) || WAITS(3, 1) || UNSEEN(0) || UNSEEN(1)))
#endif

active proctype World()
{
    atomic {
        memory[SERVER_ASLEEP(0)] = 1;
        memory[SERVER_ASLEEP(LAST)] = 1;
        run Server();
        run Client(0);
#if CLIENTS > 1
        run Client(1);
#endif
    }
end_world:
    do
    :: atomic { buffer[0].used -> flush(0) }
#if CLIENTS > 1
    :: atomic { buffer[1].used -> flush(1) }
    :: atomic { deaths && !dead[1] && !client_end[1] -> kill(1); close_client(1) }
#endif
    :: atomic { buffer[SERVER].used -> flush(SERVER) }
    :: atomic { deaths && !dead[0] && !client_end[0] -> kill(0); close_client(0) }
    :: atomic { deaths && !dead[SERVER] -> kill(SERVER); close_server(0); close_server(LAST) }
    :: LOST -> assert(!LOST)
    od
}
