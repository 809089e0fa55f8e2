/* SPDX-License-Identifier: GPL-2.0-or-later
 * What the model's search follows under -DREPLAY: lines of numbers in the file `trace`, as
 * tests/model/replay writes them. */
static unsigned char trace[8192][13];
static int farthest; /* the last line that any schedule of the model came to */

static void tell_farthest(void) { printf("farthest line: %d\n", farthest); }

static void read_trace(void) {
    FILE *file = fopen("trace", "r");
    int line, field, number;
    if (!file) { perror("trace"); exit(2); }
    for (line = 0; line < 8191; line++)
        for (field = 0; field < 13; field++) {
            if (fscanf(file, "%d", &number) != 1) { fclose(file); atexit(tell_farthest); return; }
            trace[line][field] = (unsigned char)number;
        }
    fprintf(stderr, "the trace is too long\n");
    exit(2);
}
