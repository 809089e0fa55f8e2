// SPDX-License-Identifier: GPL-2.0
/* Where the tracepoints of gate_trace.h are made. */

#define CREATE_TRACE_POINTS
#include "gate_trace.h"
