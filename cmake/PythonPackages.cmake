# Finds what pip installed. Under build isolation `import torch` fails, because the interpreter hides the
# environment's packages; its sysconfig paths still name them, so folders are looked up instead.
if(NEARSIGHT_PYTHON)
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
else()
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
endif()

execute_process(
  COMMAND ${Python_EXECUTABLE} -c
          "import sys, sysconfig; p = [sysconfig.get_path(k) for k in ('purelib', 'platlib')] + sys.path; print(';'.join(dict.fromkeys(x for x in p if x)), end='')"
  OUTPUT_VARIABLE NEARSIGHT_SITE_PACKAGES COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${Python_EXECUTABLE} -c "import sys; print(sys.prefix, end='')"
                OUTPUT_VARIABLE NEARSIGHT_PYTHON_PREFIX COMMAND_ERROR_IS_FATAL ANY)

# nearsight_find_in_packages(<variable> <relative path> [<root>…]): folder that holds <relative path>, among the
# given roots and the site-packages; <variable>-NOTFOUND otherwise.
function(nearsight_find_in_packages variable relative)
  find_path(${variable} ${relative} PATHS ${ARGN} ${NEARSIGHT_SITE_PACKAGES} NO_DEFAULT_PATH NO_CACHE)
  set(${variable} ${${variable}} PARENT_SCOPE)
endfunction()
