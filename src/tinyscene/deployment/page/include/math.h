/* Of the page, which has JavaScript's (page.js: `mathematics`). */
double nearbyint(double);
long long llrint(double);
float ceilf(float), erff(float), expf(float), fabsf(float), floorf(float), fmaxf(float, float), fminf(float, float);
float logf(float), nearbyintf(float), powf(float, float), roundf(float), sqrtf(float), tanhf(float);

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
