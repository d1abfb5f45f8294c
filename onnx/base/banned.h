/* Turns libc calls that cannot be used safely into compile errors. Included by every file through the build
 * (-include), so nobody has to remember it. */
#ifndef REGRAFT_BASE_BANNED_H
#define REGRAFT_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC poison strcpy strcat strncat sprintf vsprintf strtok gets atoi atof

#endif
